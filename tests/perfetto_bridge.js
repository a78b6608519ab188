// Perfetto's trace processor (WebAssembly, as its user interface ships it) behind the HTTP interface of
// trace_processor_shell, as far as Perfetto's Python client needs it to load a trace and to ask it questions.
// node perfetto_bridge.js FOLDER: FOLDER has engine_bundle.js and its .wasm files; prints the port once it listens.
'use strict';
const fs = require('fs');
const http = require('http');
const path = require('path');
const vm = require('vm');

const folder = process.argv[2];

class LocalRequest {  // the engine reads its own code with a synchronous request
  open(_method, name) { this.name = path.basename(name); }
  send() { this.response = new Uint8Array(fs.readFileSync(path.join(folder, this.name))).buffer; }
}

const quiet = { log() {}, warn: (...words) => process.stderr.write(words.join(' ') + '\n'), error() {} };
const scope = { console: quiet, URL, TextDecoder, TextEncoder, performance, crypto, setTimeout,
  XMLHttpRequest: LocalRequest, WorkerGlobalScope: Object, location: { href: 'file:///' } };
scope.self = scope;
const context = vm.createContext(scope);
vm.runInContext(fs.readFileSync(path.join(folder, 'engine_bundle.js'), 'utf8'), context);
const answers = [];
const port = { postMessage: (bytes) => answers.push(Buffer.from(bytes)) };
scope.onmessage({ data: port });

// The engine's own language: a stream of messages, each in field 1, with its method in field 2 and its facts in others.
const varint = (value) => {
  const bytes = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 + 128);
  return Buffer.from([...bytes, value]);
};
const field = (number, bytes) => Buffer.concat([varint(number * 8 + 2), varint(bytes.length), bytes]);

function* fields(bytes) {
  let at = 0;
  const number = () => {
    let value = 0;
    for (let unit = 1; ; unit *= 128) {
      const byte = bytes[at++];
      value += (byte % 128) * unit;
      if (byte < 128) return value;
    }
  };
  while (at < bytes.length) {
    const key = number();
    const size = number();
    if (key % 8 === 2) at += size;
    yield [Math.floor(key / 8), key % 8 === 2 ? bytes.subarray(at - size, at) : size];
  }
}

function ask(method, requestField, request, answerField) {
  answers.length = 0;
  const message = Buffer.concat([Buffer.from([16, method]), requestField ? field(requestField, request) : Buffer.alloc(0)]);
  const Bytes = vm.runInContext('Uint8Array', context);  // the engine takes its own realm's
  port.onmessage({ data: Bytes.from(field(1, message)) });
  const found = [];
  for (const [, answer] of fields(Buffer.concat(answers)))
    for (const [number, value] of fields(answer)) if (number === answerField) found.push(value);
  return Buffer.concat(found);  // parts of one message in a row are that message
}

const METHODS = {  // method, its field, the answer's field: TraceProcessorRpc in trace_processor.proto
  '/parse': [1, 101, 201],
  '/notify_eof': [2, 0, 212],
  '/query': [3, 103, 203],
  '/status': [10, 0, 210],
};

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on('data', (chunk) => chunks.push(chunk));
  request.on('end', () => {
    const [method, requestField, answerField] = METHODS[request.url];
    response.end(ask(method, requestField, Buffer.concat(chunks), answerField));
  });
});
server.listen(0, '127.0.0.1', () => process.stdout.write(`${server.address().port}\n`));
