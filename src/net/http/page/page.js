'use strict';
// Asks the node for its state every two seconds and shows it. All that comes from the node is set as text, never as markup:
// names of files are chosen by strangers.

const EVERY = 2000, POINTS = 120;
const $ = id => document.getElementById(id);
const ask = async path => {
  const answer = await fetch(path, { cache: 'no-store' });
  if (!answer.ok) throw new Error((await answer.text()).trim() || `HTTP ${answer.status}`);
  return answer.json();
};

function element(name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  return made;
}

function size(bytes) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  while (bytes >= 1024 && at < units.length - 1) { bytes /= 1024; at++; }
  return `${at && bytes < 100 ? bytes.toFixed(1) : Math.round(bytes)} ${units[at]}`;
}

function time(seconds) {
  const steps = [[86400, 'd'], [3600, 'h'], [60, 'min']];
  for (const [length, unit] of steps) if (seconds >= length) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}

// A path that is no UTF-8 comes as bytes.
function text(path) {
  if (typeof path === 'string') return path;
  const bytes = path && Object.values(path)[0];
  return Array.isArray(bytes) ? new TextDecoder().decode(new Uint8Array(bytes)) : '?';
}

// Shows facts in a list; those without a value are left out.
function facts(id, pairs) {
  $(id).replaceChildren(...pairs.filter(([, value]) => value !== undefined && value !== null).map(([name, value, kind]) => {
    const row = element('div');
    row.append(element('dt', name), element('dd', String(value), kind));
    return row;
  }));
}

function row(cells) {
  const made = element('tr');
  for (const [label, content, kind] of cells) {
    const cell = element('td'), inner = element('span', undefined, kind);
    cell.dataset.label = label;
    inner.append(...[].concat(content));
    cell.append(inner);
    made.append(cell);
  }
  return made;
}

// Replaces rows only when they differ, so that focus and selection stay where they are.
function rows(id, made) {
  const old = $(id).children;
  made.forEach((one, at) => {
    if (!old[at]) $(id).append(one);
    else if (!old[at].isEqualNode(one)) {
      const focused = old[at].contains(document.activeElement);
      old[at].replaceWith(one);
      if (focused) one.querySelector('a')?.focus();
    }
  });
  while ($(id).children.length > made.length) $(id).lastChild.remove();
}

function showNode(status) {
  const well = status.troubles.length === 0;
  $('state').textContent = well ? 'well' : 'not well';
  $('state').className = well ? 'well' : 'ill';
  document.title = `${well ? '' : '(!) '}Elver ${status.id.slice(0, 8)}`;
  $('alarms').hidden = well;
  const alarms = status.troubles.map(trouble => element('li', `${trouble.message} (for ${time(trouble.seconds)})`));
  if (alarms.map(one => one.textContent).join() !== $('alarm-list').dataset.shown) {
    $('alarm-list').dataset.shown = alarms.map(one => one.textContent).join();
    $('alarm-list').replaceChildren(...alarms);
  }
  facts('node', [
    ['id', status.id], ['version', status.version], ['listens on', status.listen], ['seen as', status.address ?? 'not known yet'],
    ['role', status.leaf ? 'leaf' : 'full'], ['network', status.network_closed ? 'closed: only with its key' : 'open'],
    ['up for', `${time(status.uptime_seconds)}, start ${status.boots}`],
    ['disk', status.disk.health, status.disk.health === 'well' ? '' : 'bad'],
    ['stored', `${size(status.stored_bytes)} of ${size(status.quota_bytes)}`],
    ['free', status.free_bytes === null ? null : `${size(status.free_bytes)}, ${size(status.keep_free_bytes)} of it for the host`],
  ]);
}

const series = { in: [], out: [], http: [] };
let before;

function showTraffic(status) {
  const now = performance.now();
  const sums = { in: status.downloaded_bytes, out: status.uploaded_bytes, http: status.counters.http_content_bytes ?? 0 };
  for (const name of Object.keys(series)) {
    // The sums begin again when the node has restarted.
    const rate = before ? Math.max(0, sums[name] - before.sums[name]) * 1000 / (now - before.now) : 0;
    const points = series[name];
    points.push(rate);
    if (points.length > POINTS) points.shift();
    $(`rate-${name}`).textContent = `${size(rate)}/s`;
    const top = Math.max(1, ...points), step = 240 / (POINTS - 1), from = 240 - step * (points.length - 1);
    const line = points.map((point, at) => `L${(from + at * step).toFixed(1)} ${(47 - 45 * point / top).toFixed(1)}`).join('');
    $(`chart-${name}`).firstElementChild.setAttribute('d', `M${from.toFixed(1)} 48${line}V48Z`);
  }
  before = { now, sums };
  const counters = status.counters;
  facts('transfers', [
    ['downloads', status.downloads], ['streamed files', status.reads], ['waiting', status.queued], ['streams', `${status.streams} of ${status.streams_max}`],
    ['lookups', status.lookups], ['in, so far', size(status.downloaded_bytes)], ['out, so far', size(status.uploaded_bytes)],
    ['HTTP requests', counters.http_requests], ['HTTP refused', (counters.http_requests_malformed ?? 0) + (counters.http_requests_denied ?? 0)
      + (counters.http_requests_too_large ?? 0) + (counters.http_turned_away ?? 0)],
  ]);
}

function showRepair(status) {
  const repair = status.repair, scrub = status.scrub;
  facts('repair', [
    ['pieces', `${status.pieces} stored for others`],
    ...(repair ? [
      ['healthy', repair.whole], ['too few copies', repair.short, repair.short ? 'wait' : ''], ['urgent', repair.urgent, repair.urgent ? 'bad' : ''],
      ['being copied', repair.copying], ['surplus', repair.surplus], ['copies made', `${repair.copies_made}, ${size(repair.bytes)}`],
      ['partition', repair.partition && `suspected for ${time(repair.partition.seconds)}: ${repair.partition.silent} of ${repair.partition.neighbours} silent`, 'bad'],
    ] : []),
    ['scrub', scrub.running ? `under way, ${scrub.percent} %` : scrub.last ? `${time(scrub.last_age_seconds ?? 0)} ago, ${scrub.last.bad} bad` : 'not yet complete'],
  ]);
}

const GOOD = { live: 'live', suspect: 'silent', unresponsive: 'silent for long', evicted: 'gone', left: 'said goodbye', unproven: 'not yet contacted' };
const KIND = { suspect: 'wait', unresponsive: 'bad', evicted: 'bad', left: 'wait', unproven: 'wait' };

function showPeers(status, peers) {
  const gossip = status.gossip;
  facts('members', [['contacts', status.peers], ...(gossip ? ['live', 'suspect', 'unresponsive', 'evicted', 'left', 'unproven'].map(name => [GOOD[name], gossip[name], gossip[name] ? KIND[name] : '']) : [])]);
  rows('peers', peers.map(peer => {
    const words = [peer.state ? GOOD[peer.state] : peer.good ? 'answers' : 'no answer lately'];
    if (peer.role === 'leaf') words.push('leaf');
    if (peer.bans?.length) words.push('banned: sent wrong content');
    const name = element('span', peer.id.slice(0, 16));
    name.title = peer.id;
    return row([
      ['Node', [name, element('span', peer.version ? `version ${peer.version}` : '', 'note')]], ['Address', peer.addr],
      ['Answers in', peer.rtt_micros === null ? '–' : `${(peer.rtt_micros / 1000).toFixed(1)} ms`],
      ['State', words.join(', '), peer.bans?.length ? 'bad' : KIND[peer.state]],
    ]);
  }));
  $('no-peers').hidden = peers.length > 0;
  const draw = (shape, id, kind, values) => {
    const angle = parseInt(id.slice(0, 8), 16) / 2 ** 32 * 2 * Math.PI, made = document.createElementNS('http://www.w3.org/2000/svg', shape);
    const [x, y] = [96 * Math.sin(angle), -96 * Math.cos(angle)];
    for (const [name, value] of Object.entries(values(x, y))) made.setAttribute(name, value);
    made.setAttribute('class', kind);
    return made;
  };
  const dots = peers.map(peer => draw('circle', peer.id, `dot ${KIND[peer.state] ?? ''}`, (cx, cy) => ({ cx, cy, r: 5 })));
  dots.push(draw('rect', status.id, 'self', (x, y) => ({ x: x - 7, y: y - 7, width: 14, height: 14 })));
  $('ring').replaceChildren($('ring').firstElementChild, ...dots);
}

const STATES = { shared: 'shared', checking: 'being checked', changed: 'changed: not served', absent: 'cannot be read', downloading: 'downloading', queued: 'waits' };
let files = [], hasMore = false, page = '';

function showFiles() {
  const wanted = $('filter').value.trim().toLowerCase();
  const shown = files.filter(file => !wanted || text(file.path).toLowerCase().includes(wanted) || file.hash.startsWith(wanted));
  rows('files', shown.map(file => {
    const path = text(file.path), name = path.split('/').pop() || path;
    const link = element('a', name);
    link.href = `/${file.hash}/${encodeURIComponent(name)}`;
    const state = [STATES[file.state] ?? file.state];
    if (file.cached) state.push('in the cache');
    const cell = [state.join(', ')];
    if (file.have < file.length) {
      const bar = element('progress');
      bar.max = file.length;
      bar.value = file.have;
      bar.setAttribute('aria-label', `${name}: ${size(file.have)} of ${size(file.length)}`);
      cell.push(bar, element('span', `${Math.floor(100 * file.have / file.length)} % of ${size(file.length)}`, 'note'));
    }
    const few = file.replicas > 0 && file.copies < file.replicas;
    return row([
      ['Name', [link, element('span', path, 'note'), element('span', file.hash, 'note')]], ['Size', size(file.length)],
      ['Copies', file.replicas ? `${file.copies} of ${file.replicas}` : String(file.copies), few ? 'few' : ''],
      ['State', cell, ['changed', 'absent'].includes(file.state) ? 'bad' : ''],
    ]);
  }));
  $('files-count').textContent = `${shown.length} of ${files.length}${hasMore ? ' on this page' : ''}`;
  $('no-files').hidden = files.length > 0 || page !== '';
  $('more').hidden = !hasMore;
  $('first').hidden = page === '';
}

$('filter').addEventListener('input', showFiles);
$('more').addEventListener('click', () => {
  const last = files[files.length - 1];
  page = `?hash=${last.hash}&path=${encodeURIComponent(text(last.path))}`;
  tick();
});
$('first').addEventListener('click', () => { page = ''; tick(); });

let timer, busy = false;

async function tick() {
  clearTimeout(timer);
  if (busy) return;
  busy = true;
  try {
    const [status, peers, list] = await Promise.all([ask('/api/status'), ask('/api/peers'), ask(`/api/ls${page}`)]);
    showNode(status);
    showTraffic(status);
    showRepair(status);
    showPeers(status, peers.peers);
    files = list.files;
    hasMore = list.more;
    showFiles();
  } catch (error) {
    $('state').textContent = `the node does not answer: ${error.message}`;
    $('state').className = 'ill';
  }
  busy = false;
  // A page that is not visible asks for nothing.
  if (!document.hidden) timer = setTimeout(tick, EVERY);
}

document.addEventListener('visibilitychange', () => { if (!document.hidden) tick(); });
tick();
