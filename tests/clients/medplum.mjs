// @medplum/hl7: matches answers by MSA-2 itself.
import { check, installed, options, run, text } from './message.mjs';

const { host, port, mode, prefix, count, wanted } = options();
const { Hl7Client, ReturnAckCategory } = await installed('@medplum/hl7');
const { Hl7Message } = await installed('@medplum/core');

run(async () => {
  const client = new Hl7Client({ host, port, keepAlive: true });
  for (let n = 1; n <= count; n++) {
    const id = `${prefix}${n}`;
    const options = mode === 'enhanced' ? { returnAck: ReturnAckCategory.FIRST } : undefined;
    const answer = await client.sendAndWait(Hl7Message.parse(text(id, mode)), options);
    const msa = answer.getSegment('MSA');
    check(msa.getField(1).toString(), msa.getField(2).toString(), wanted, id);
  }
  await client.close();
});
