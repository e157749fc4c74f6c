// hl7v2-net: matches answers by MSA-2 itself; plain or TLS.
import { readFileSync } from 'node:fs';
import { check, installed, options, run, text } from './message.mjs';

const { host, port, mode, prefix, count, ca, wanted } = options();
const { Hl7Client } = await installed('hl7v2-net');
const { HL7Message } = await installed('hl7v2');

run(async () => {
  const client = ca
    ? Hl7Client.createTlsClient({ host, port, ca: readFileSync(ca), servername: 'localhost', responseTimeout: 20000 })
    : Hl7Client.createClient({ host, port, responseTimeout: 20000 });
  await client.connect();
  for (let n = 1; n <= count; n++) {
    const id = `${prefix}${n}`;
    const answer = await client.sendMessageWaitAck(HL7Message.parse(text(id, mode)));
    const msa = answer.toHL7String().split('\r').find((s) => s.startsWith('MSA')).split('|');
    check(msa[1], msa[2], wanted, id);
  }
  await client.close();
});
