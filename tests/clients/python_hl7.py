"""python-hl7: its blocking client, its asyncio client (plain or TLS) and its command mllp_send, chosen by the first argument."""

import asyncio
import os
import ssl
import subprocess
import sys
import tempfile

import hl7
from hl7.client import MLLPClient
from hl7.mllp import open_hl7_connection

which, host, port, mode, prefix, count = sys.argv[1:7]
ca = sys.argv[7] if len(sys.argv) > 7 and sys.argv[7] else None
port, count = int(port), int(count)
wanted = "CA" if mode == "enhanced" else "AA"


def text(number):
    modes = "|||AL|NE" if mode == "enhanced" else ""
    return (
        f"MSH|^~\\&|CLIENT|ST-MARYS|SITEWARD|HUB|20260101120000||ADT^A01^ADT_A01|{prefix}{number}|P|2.5.1{modes}\r"
        "EVN|A01|20260101120000\rPID|1||4711^^^SM^MR||TEST^CLIENT||19700101|F\rPV1|1|I\r"
    )


def check(answer, number):
    msa = answer.segment("MSA")
    got = (str(msa[1]), str(msa[2]))
    if got != (wanted, f"{prefix}{number}"):
        sys.exit(f"answered {got}, wanted {wanted} {prefix}{number}")


def blocking():
    with MLLPClient(host, port) as client:
        for number in range(1, count + 1):
            raw = client.send_message(text(number)).decode()
            check(hl7.parse(raw.strip("\x0b\x1c\r") + "\r"), number)


async def asynchronous():
    context = None
    if ca:
        context = ssl.create_default_context(cafile=ca)
        context.check_hostname = False
    reader, writer = await asyncio.wait_for(open_hl7_connection(host, port, ssl=context), 20)
    for number in range(1, count + 1):
        writer.writemessage(hl7.parse(text(number)))
        await writer.drain()
        check(await asyncio.wait_for(reader.readmessage(), 20), number)
    writer.close()
    await writer.wait_closed()


def command():
    """All messages in one file, as people use it."""
    with tempfile.NamedTemporaryFile("w", newline="", suffix=".hl7") as file:
        file.write("".join(f"\x0b{text(n)}\x1c\r" for n in range(1, count + 1)))
        file.flush()
        program = os.path.join(os.path.dirname(sys.executable), "mllp_send")
        done = subprocess.run([program, "-p", str(port), "-f", file.name, host], capture_output=True, timeout=60, check=True)
    answers = [a.strip("\x0b\x1c\r\n") for a in done.stdout.decode().split("\x1c")]
    answers = [hl7.parse(a + "\r") for a in answers if a]
    if len(answers) != count:
        sys.exit(f"{len(answers)} answers to {count} messages: {done.stdout!r}")
    for number, answer in enumerate(answers, 1):
        check(answer, number)


if which == "asyncio":
    asyncio.run(asynchronous())
else:
    {"blocking": blocking, "mllp_send": command}[which]()
