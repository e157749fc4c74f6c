#!/bin/sh
# A gateway box of its own for one test: this machine's files under a layer in memory, in which siteward-drop is installed, OpenSSH listens on
# loopback and the agent runs as its own user. Nothing of it stays. Called inside a mount namespace:
#
#   box.sh DIRECTORY PORT     DIRECTORY: siteward, siteward.toml, tls/, siteward-drop.deb, siteward.sysusers, keys/
set -eu
given=$1 port=$2

if [ "${3:-}" != inside ]; then
    layer=$given/layer
    mkdir -p "$layer"
    mount -t tmpfs -o size=400M tmpfs "$layer"
    mkdir "$layer/upper" "$layer/work" "$layer/root"
    mount -t overlay overlay -o "lowerdir=/,upperdir=$layer/upper,workdir=$layer/work" "$layer/root"
    mount --rbind /dev "$layer/root/dev"
    mount -t proc proc "$layer/root/proc"
    mount -t tmpfs tmpfs "$layer/root/run"
    mkdir "$layer/root/given"
    mount --bind "$given" "$layer/root/given"
    exec chroot "$layer/root" /bin/sh /given/box.sh /given "$port" inside
fi

mkdir -p /run/sshd
systemd-sysusers "$given/siteward.sysusers"
dpkg --force-depends --install "$given/siteward-drop.deb"
siteward-drop add acme "$given/keys/acme.pub" 16M
siteward-drop add other "$given/keys/other.pub" 16M
mkdir -p /etc/siteward
cp -r "$given/siteward.toml" "$given/tls" /etc/siteward/
chgrp -R siteward /etc/siteward
chmod -R u=rwX,g=rX,o= /etc/siteward
install -m 755 "$given/siteward" /usr/bin/siteward
install -d -o siteward -g siteward -m 700 /var/lib/siteward

ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/box_key
/usr/sbin/sshd -D -p "$port" -o ListenAddress=127.0.0.1 -h /etc/ssh/box_key -o PidFile=/run/box-sshd.pid -E "$given/sshd.log" &

# What the timer of the package does on a box with systemd, as the same user.
permit=$(sed -n 's/^ExecStart=//p' /usr/lib/systemd/system/siteward-drop@.service | sed 's/%i/acme/g')
(cd / && while sleep 1; do setpriv --reuid acme --regid siteward-drop --clear-groups sh -c "exec $permit"; done) &

echo "box: ready"
cd /
setpriv --reuid siteward --regid siteward --clear-groups /usr/bin/siteward run --config /etc/siteward/siteward.toml
