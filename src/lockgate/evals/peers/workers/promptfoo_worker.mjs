// promptfoo assertions. The same messages as main.py; run by node with the folder that holds node_modules/promptfoo.
import { createRequire } from 'node:module';
import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const write = process.stdout.write.bind(process.stdout);
process.stdout.write = process.stderr.write.bind(process.stderr); // what the package prints is not ours to read
const send = (message) => write(JSON.stringify(message) + '\n');

// Assertions that start another program or call out: a rubric names those as scorers of the project's own.
const REFUSED = /^(not-)?(python|ruby|webhook)$/;
// Assertions that hold the answer against a text: without a value, against the case's expected output.
const EXPECTS =
  /^(not-)?(equals|i?contains(-any|-all)?|starts-with|levenshtein|rouge-n|bleu|gleu|meteor|similar|factuality|context-recall)$/;
// What promptfoo says of a grader it could not read: no word on the answer.
const UNREADABLE = /malformed response|did not match expected format|Could not extract JSON|produced a malformed|No output/i;

let promptfoo;
let version;
try {
  const require = createRequire(join(process.argv[2], 'package.json'));
  const entry = require.resolve('promptfoo');
  promptfoo = (await import(pathToFileURL(entry.replace(/\.cjs$/, '.js')).href)).default;
  let folder = dirname(entry);
  while (!folder.endsWith('promptfoo')) folder = dirname(folder);
  version = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')).version;
  if (typeof promptfoo?.assertions?.runAssertion !== 'function') throw new Error('it has no assertions.runAssertion');
} catch (failure) {
  send({ failed: String(failure?.message ?? failure) });
  process.exit(0);
}

const open = new Map();
let last = 0;

function question(request, kind, content) {
  const number = ++last;
  return new Promise((resolve) => {
    open.set(number, (answer) => {
      if (answer.error !== undefined) request.failure = answer.error;
      resolve(answer);
    });
    send({ [kind]: number, for: request.id, ...content });
  });
}

// The evaluation's judge and embedding model, as promptfoo asks a provider.
function providerOf(request) {
  return {
    id: () => 'lockgate:judge',
    callApi: async (prompt) => {
      let messages;
      try {
        messages = JSON.parse(prompt);
      } catch {
        messages = prompt;
      }
      if (!Array.isArray(messages)) messages = [{ role: 'user', content: prompt }];
      const answer = await question(request, 'ask', { messages, schema: null });
      return answer.error === undefined ? { output: answer.text, tokenUsage: {} } : { error: answer.error };
    },
    callEmbeddingApi: async (text) => {
      const answer = await question(request, 'embed', { texts: [text] });
      return answer.error === undefined ? { embedding: answer.vectors[0], tokenUsage: {} } : { error: answer.error };
    },
  };
}

const OWN = 'assertions';
const OPTIONS = new Set(['value', 'threshold', 'config', 'rubricPrompt', 'transform']);

function assertionOf(request) {
  const type = request.symbol;
  if (REFUSED.test(type)) throw new Error(`assertions of type ${type} are not run`);
  for (const name of Object.keys(request.options)) {
    if (!OPTIONS.has(name)) throw new Error(`unknown option '${name}': ${[...OPTIONS].join(', ')}`);
  }
  if (/^file:\/\//.test(String(request.options.value ?? ''))) throw new Error('a value is written out, not file://');
  return { type, ...request.options };
}

// The case's own assertions, as `golden import` keeps them: none that starts a program, none with a grader of its own.
function ownAssertions(request, provider) {
  const safe = (one) => {
    assertionOf({ symbol: one.type, options: one.value === undefined ? {} : { value: one.value } });
    return { ...one, provider, ...(one.assert && { assert: one.assert.map(safe) }) };
  };
  return (request.sample.metadata.assert ?? []).map(safe);
}

async function score(request) {
  const { sample } = request;
  const whole = request.symbol === OWN;
  const assertion = assertionOf(request);
  if (assertion.value === undefined && EXPECTS.test(assertion.type)) {
    if (sample.expected === null) return { skip: 'the case has no expected_output, and the metric no value' };
    assertion.value = /-(any|all)$/.test(assertion.type) ? [sample.expected].flat() : [sample.expected].flat()[0];
  }
  const provider = providerOf(request);
  const vars = { query: sample.input, input: sample.input, context: sample.contexts ?? [], ...sample.metadata.vars };
  const own = whole ? ownAssertions(request, provider) : [];
  if (whole && own.length === 0) return { skip: 'the case has no metadata.assert' };
  const test = { vars, options: { provider }, assert: own, threshold: sample.metadata.assert_threshold };
  const run = whole ? promptfoo.assertions.runAssertions : promptfoo.assertions.runAssertion;
  const result = await run({
    prompt: sample.input,
    ...(whole ? {} : { assertion: { ...assertion, provider } }),
    test,
    vars,
    latencyMs: sample.seconds * 1000,
    providerResponse: { output: sample.output, cost: sample.cost_usd, tokenUsage: {} },
  });
  if (request.failure !== undefined) return { unscored: request.failure };
  if (result.pass === false && UNREADABLE.test(result.reason ?? '')) return { unscored: result.reason.slice(0, 300) };
  if (typeof result.score !== 'number') return { error: `no score: ${result.reason}` };
  return { value: result.score, reason: (result.reason ?? '').slice(0, 500) };
}

async function reply(request) {
  let found;
  try {
    if (request.op === 'check') {
      assertionOf(request);
      found = { value: 1 };
    } else {
      found = await score(request);
    }
  } catch (failure) {
    const said = request.failure ?? String(failure?.message ?? failure).slice(0, 500);
    found = request.failure === undefined ? { error: said } : { unscored: said };
  }
  send({ id: request.id, ...found });
}

send({ ready: version });
createInterface({ input: process.stdin, crlfDelay: Infinity })
  .on('line', (line) => {
    const message = JSON.parse(line);
    if (message.answer !== undefined) {
      open.get(message.answer)?.(message);
      open.delete(message.answer);
    } else if (message.cancel === undefined) {
      void reply(message);
    }
  })
  .on('close', () => process.exit(0));
