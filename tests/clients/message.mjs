// What every client here sends: an ADT whose MSH-10 is given, in original or enhanced acknowledgement mode.
export function text(id, mode) {
  const modes = mode === 'enhanced' ? '|||AL|NE' : '';
  return [
    `MSH|^~\\&|CLIENT|ST-MARYS|SITEWARD|HUB|20260101120000||ADT^A01^ADT_A01|${id}|P|2.5.1${modes}`,
    'EVN|A01|20260101120000',
    'PID|1||4711^^^SM^MR||TEST^CLIENT||19700101|F',
    'PV1|1|I',
  ].join('\r') + '\r';
}

export function options() {
  const [host, port, mode, prefix, count, ca] = process.argv.slice(2);
  return { host, port: Number(port), mode, prefix, count: Number(count), ca, wanted: mode === 'enhanced' ? 'CA' : 'AA' };
}

export function check(code, id, wantedCode, wantedId) {
  if (code !== wantedCode || id !== wantedId) {
    throw new Error(`answered ${code} ${id}, wanted ${wantedCode} ${wantedId}`);
  }
}

// Ends the program by what became of the work; a client that waits for ever is ended too.
export function run(work) {
  setTimeout(() => fail(new Error('no end after 60 s')), 60000).unref();
  const fail = (error) => { console.error(error); process.exit(1); };
  work().then(() => process.exit(0), fail);
}

// A module of the installed clients, whichever kind it is.
import { createRequire } from 'node:module';
import { pathToFileURL } from 'node:url';
export async function installed(name) {
  const from = createRequire(process.env.CLIENTS + '/package.json');
  return import(pathToFileURL(from.resolve(name)).href);
}
