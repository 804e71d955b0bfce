// BullMQ: completes after the run and takes the next job in the same call; finished jobs removed; concurrency 100 in place of 1;
// `addBulk` for many. Delayed jobs wait on a marker that wakes the worker at their time.
//
// node bullmq.mjs HOME WHAT SPEC, where HOME holds node_modules; it prints and notes what adapters/harness.py says.

import { renameSync, writeFileSync, appendFileSync } from 'node:fs'
import { createRequire } from 'node:module'

const [home, what, text] = process.argv.slice(2)
const { Queue, Worker } = createRequire(`${home}/`)('bullmq')
const spec = JSON.parse(text)
const PAYLOAD = 'x'.repeat(100)
const BATCH = 1000
const CONCURRENCY = 100
const OPTIONS = { removeOnComplete: true, removeOnFail: true }

const place = spec.url.startsWith('unix://')
  ? { path: spec.url.slice('unix://'.length) }
  : { host: new URL(spec.url).hostname, port: Number(new URL(spec.url).port) }
const connection = { ...place, maxRetriesPerRequest: null }

function note (suffix, content) {
  const part = spec.note.replace(/\.note$/, '.part')
  writeFileSync(part, content)
  renameSync(part, spec.note.replace(/\.note$/, suffix))
}

function clocks () {
  const { user, system } = process.cpuUsage()
  return { seconds: performance.now() / 1000, cpu: (user + system) / 1e6 }
}

function since (began) {
  const now = clocks()
  return JSON.stringify({ seconds: now.seconds - began.seconds, cpu: now.cpu - began.cpu })
}

function work () {
  let ran = 0
  let began
  const worker = new Worker('bench', async job => {
    if (job.name === 'late') {
      const lateness = performance.timeOrigin + performance.now() - job.data.due
      appendFileSync(spec.note, `${lateness.toFixed(3)}\n`)
      return
    }
    ran += 1
    if (ran === spec.warm) {
      began = clocks()
      note('.warm', '')
    } else if (ran === spec.warm + spec.jobs) {
      note('.took', since(began))
    }
  }, { connection, concurrency: CONCURRENCY, removeOnComplete: { count: 0 }, removeOnFail: { count: 0 } })
  process.on('SIGTERM', async () => { await worker.close(true); process.exit(0) })
}

async function one (queue, jobs) {
  for (let index = 0; index < jobs; index++) await queue.add('noop', { text: PAYLOAD }, OPTIONS)
}

async function bulk (queue, jobs) {
  for (let first = 0; first < jobs; first += BATCH) {
    const size = Math.min(BATCH, jobs - first)
    await queue.addBulk(Array.from({ length: size }, () => ({ name: 'noop', data: { text: PAYLOAD }, opts: OPTIONS })))
  }
}

async function schedule (queue, jobs) {
  const step = 1000 / spec.rate
  for (let index = 0; index < jobs; index++) {
    const due = Math.floor(spec.first_ms + (index + Math.random()) * step)
    const timestamp = Date.now()
    await queue.add('late', { due }, { ...OPTIONS, timestamp, delay: due - timestamp })
  }
}

async function produce () {
  const queue = new Queue('bench', { connection })
  await queue.waitUntilReady()
  const enqueue = { one, bulk, fill: bulk, schedule }[what]
  if (what === 'one' || what === 'bulk') await enqueue(queue, spec.warm)
  const began = clocks()
  await enqueue(queue, spec.jobs)
  console.log(since(began))
  await queue.close()
}

if (what === 'worker') work()
else await produce()
