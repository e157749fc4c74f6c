// simple-hl7: one connection kept, one message after the other.
import { check, installed, options, run, text } from './message.mjs';

const { host, port, mode, prefix, count, wanted } = options();
const hl7 = (await installed('simple-hl7')).default;
const parser = new hl7.Parser({ segmentSeperator: '\r' });

run(async () => {
  const client = hl7.Server.createTcpClient({ host, port, keepalive: true });
  for (let n = 1; n <= count; n++) {
    const id = `${prefix}${n}`;
    const message = parser.parse(text(id, mode));
    const answer = await new Promise((done, failed) => client.send(message, (error, ack) => (error ? failed(error) : done(ack))));
    const msa = answer.getSegment('MSA');
    check(msa.getField(1), msa.getField(2), wanted, id);
  }
  client.close();
});
