// node-hl7-client: its own queue and codec; plain or TLS.
import { readFileSync } from 'node:fs';
import { check, installed, options, run, text } from './message.mjs';

const { host, port, mode, prefix, count, ca, wanted } = options();
const { Client, Message } = await installed('node-hl7-client');

run(async () => {
  const tls = ca ? { ca: readFileSync(ca), servername: 'localhost', rejectUnauthorized: true } : undefined;
  const client = new Client({ host, version: '2.5.1', ...(tls ? { tls } : {}) });
  let answered;
  const connection = client.createConnection({ port }, async (response) => answered(response.getMessage()));
  for (let n = 1; n <= count; n++) {
    const id = `${prefix}${n}`;
    const answer = await new Promise((done, failed) => {
      answered = done;
      connection.sendMessage(new Message({ text: text(id, mode) })).catch(failed);
    });
    check(answer.get('MSA.1').toString(), answer.get('MSA.2').toString(), wanted, id);
  }
  await connection.close();
});
