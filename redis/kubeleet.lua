#!lua name=kubeleet
-- The state machine of kubeleet: every change of state in Redis is one of these functions.
--
-- Keys, all behind one prefix (KEYS[1] is always `<prefix>cluster`, from which `key` derives them):
--   cluster                    hash    schema, id, created_ms, run_id, tick, lost_ms, the guards' deadlines,
--                                      swept_ms, fence (given last), memory (as kl_memory_check found it last),
--                                      round_robin: the node that had its turn last
--   services                   zset    keys of all services, all scores 0: ordered by name
--   services:changed           zset    services that a controller is to look at, by when
--   services:with:<ns>/<k>=<v> zset    services of a namespace that have this label, all scores 0
--   services:wake              list    one element while any of them is due: what controllers wait for
--   service:<ns>/<name>        hash    uid, wish, turn, revision, replicas, split, running, submission, cpu, memory,
--                                      priority, rank, kept, hold (its pods stay on a lost node),
--                                      host_ports, asks, wishes, labels, placed, registry,
--                                      spec:<revision>, revised_ms:<revision>,
--                                      digest:<revision> (of its image; pods that run it hold `=`)
--   service:<ns>/<name>:pods   zset    its pods, by replica index
--   service:<ns>/<name>:gone   hash    uid and wish of one that was deleted; expires
--   idempotency:<ns>:<key>     hash    what a submit with that key answered; expires
--   pods                       zset    pods without an owner, all scores 0
--   pod:<id>                   hash    owner, revision, replica, desired, phase, node, attempt, nonce, reason, ...
--                                      rank (within its priority, if it has any), victims (who make room for it)
--                                      wants, host_ports, avoid, asks (`disk=4096,gpu=2,pids=9`) where it wants
--                                      something of its node; price, and devices (`gpu/0,gpu/1`) that it has there
--                                      decision: the last one of those kept by which it waits
--                                      leaves (why it is to go elsewhere), pushed_to (by a person, on this node's list)
--                                      fence (grows with each placement; its program is told), hold (of one without owner)
--                                      a stopped pod stays as a tombstone (desired, phase) for TOMBSTONE_S
--   sq, sq:high, sq:low        list    waiting pods: ids, or raw descriptions; pushed left, served right
--   sq:ranked, sq:high:ranked, sq:low:ranked   zset   those of them whose services have a rank, by it
--   sq:claims, sq:claim:<b>    zset, list   claims by lease end, and the entries of one
--   sq:parked                  zset    pods that fit nowhere, by next try
--   nodes, nodes:lost          zset    living nodes by last heartbeat, lost ones by when they were swept
--   nodes:draining             set     nodes whose pods are to be moved elsewhere
--   nodes:strained             zset    nodes under pressure, which tell what uses most there, by last heartbeat
--   moves                      zset    pods moved off such nodes, or suggested to be, by when
--   node:<name>                hash    epoch, engine_id, heartbeat_ms, capacity, sums of requests, pressure, state, platform,
--                                      cordoned, draining, labels, turn (grows as they change), ports (fixed ones
--                                      in use, `,80/tcp,53/udp,`), offers and asked (`disk=4096,pids=9`), devices
--                                      and devices_used (`,gpu/0,gpu/1,`), pressed (what is above its limit), users
--                                      (which pods use most), strained_ms and more on how long it is under pressure, leaving (a
--                                      pod), suggestion
--   cs:<node>                  set     pods assigned to the node
--   pq:<node>, rq:<node>       list    the node's inbox, and what its agent is handling
--   nq:<node>                  stream  what its agent is asked for: session, request (empty: the session is over); expires
--   sessions:<node>            zset    the node's open sessions, by lease end; expires
--   session:<id>               hash    (an id begins with its node's name and a colon) node, opened_ms, api_ms, agent_ms, done, waits_in, waits_out; expires
--   session:<id>:in, :out      stream  what API and agent say to each other: kind, data; expires
--   logs, logs:<pod>           zset, hash   pods whose last lines are kept, by when; node, saved_ms, lines; expires
--   decisions, decision:<id>   zset, string   which decisions of schedulers are kept, each by where it would end if all
--                                      ever kept lay end to end (bytes); what was decided and why, JSON; expires
--   dead                       list    dead letters, JSON, newest first: id, entry (shortened, without secrets), where, why,
--                                      when_ms, whole (the entry itself is kept)
--   dead:entries               hash    entries of dead letters as they were pushed, by id, to be pushed again
--   dead:totals                hash    added, dropped, moved: how many were ever made, gave way to newer ones, and how many keys
--                                      were moved to quarantine
--   quarantine                 zset    keys of a wrong type that were moved out of the way, by when
--   quarantine:<ms>-<n>:<key>  any     one of them; expires
--   events                     stream  what happened, up to EVENT_PODS_MAX pods an entry: kind, by, owner, reason,
--                                      then pod, node, pod, node ...; see write_event
--
-- Rules:
--   * Check everything, then write: Redis keeps what was written before an error.
--   * A key to which a person gave a wrong type is moved to `quarantine` by whichever command meets it, and
--     counts as absent; see `redis` below. What may be damaged otherwise is read through pcall.
--   * Time is Redis's TIME, in milliseconds; durations come as arguments.
--   * Payloads are opaque: nothing here decodes JSON.
--   * Replies begin with a word. error_reply('KLBADARG ...') is for callers' bugs only.
--   * Heartbeats, reports and deletions run in a full Redis (allow-oom), creations do not.
--   * Every loop is bounded by an argument or by a constant below.

local VERSION = 8 -- of this library; raise it with every change
local SERVES = 8 -- the oldest version whose processes it still answers as they expect
local SCHEMA = 1 -- of the keys; raise it when old and new processes cannot share them

local EVENTS_MAX = 10000
local EVENT_PODS_MAX = 100
local DEAD_MAX = 1000
local DEAD_ENTRY_MAX = 4096
local DEAD_WHOLE_MAX = 16384 -- longer entries are not kept whole, and cannot be pushed again
local DEAD_TOLD_MAX = 10 -- letters of one call that are events of their own
local QUARANTINE_MAX = 100 -- keys; older ones are deleted
local QUARANTINE_S = 7 * 86400
local REASON_MAX = 1000
local POD_ID_MAX = 80
local BATCH_MAX = 1000 -- keeps unpack far below Lua's stack limit, and one call in the low milliseconds
local TOMBSTONE_S = 86400
local CLAIM_KEPT_S = 7 * 86400 -- of a claim whose lease was taken away by hand, and its scheduler died
local NODES_FORGOTTEN = 10 -- nodes lost for longer than TOMBSTONE_S that one sweep forgets
local SESSIONS_MAX = 64 -- open at once on one node
local REQUESTS_MAX = 256 -- unread by one agent: each session makes two, and a dead agent reads none
local REQUESTS_S = 60
local PARKED_DOUBLINGS = 4 -- the delay of a parked pod's next try doubles this often: 1 s to 16 s
local REVISIONS_MAX = 100 -- of one service, however fast they follow one another
local SPLIT_IDLE_MS = 5000 -- a split that made no step for so long has lost its API
local COMPARED_MAX = 500 -- services that one comparison looks at
local SHARED_BATCH = 10 -- a batch of so many leaves a part of it to lower priorities:
local NORMAL_SHARE = 10 -- a tenth to normal ones,
local LOW_SHARE = 50 -- and a fiftieth to low ones
local VICTIMS_MAX = 100 -- pods that make room for one
local ROOM_RELEASE = 10 -- parked pods that are tried again when a node gets room
local AVOID_MAX = 5 -- nodes that gave a pod back, the last ones, that it keeps away from
local MOVES_MAX = 1000 -- remembered at once; far above those of a minute
local MINUTE_MS = 60000
local RECOVERIES_MAX = 3 -- a recovery that waits for nodes to tell is over after so many times its length
local CLOCK_AHEAD_MS = 2000 -- a sweep that finds the clock further on, or back, takes it for a jump

-- What nodes offer any part of beside cpu and memory, and pods ask for; every other word of a pod's
-- `asks` is a kind of devices, each of which is one pod's at a time. As in src/model/amounts.rs.
local AMOUNTS = { disk = true, pids = true }

-- Position of a phase in a life; the same table as src/model/phase.rs.
local RANK = {
  waiting = 0,
  scheduled = 1,
  starting = 2,
  running = 3,
  unhealthy = 3,
  ['crash-loop'] = 3,
  succeeded = 4,
  failed = 4,
  stopped = 4,
}

-- Phases in which a container runs.
local RUNS = { running = true, unhealthy = true }

---------------------------------------------------------------------------------------------------
-- Keys of a wrong type

-- Keys of which there is one, and what they are.
local KINDS = {
  cluster = 'hash', services = 'zset', ['services:changed'] = 'zset', ['services:wake'] = 'list', pods = 'zset', sq = 'list',
  ['sq:high'] = 'list', ['sq:low'] = 'list', ['sq:claims'] = 'zset', ['sq:parked'] = 'zset', ['sq:ranked'] = 'zset',
  ['sq:high:ranked'] = 'zset', ['sq:low:ranked'] = 'zset', nodes = 'zset', ['nodes:lost'] = 'zset', ['nodes:draining'] = 'set',
  ['nodes:strained'] = 'zset', moves = 'zset', logs = 'zset', decisions = 'zset', dead = 'list', ['dead:entries'] = 'hash',
  ['dead:totals'] = 'hash', quarantine = 'zset', events = 'stream',
}

-- What the others are, by how their names begin and end; the first that fits counts.
local KINDS_BY_NAME = {
  { '^services:with:', 'zset' }, { '^service:.*:pods$', 'zset' }, { '^service:', 'hash' }, { '^idempotency:', 'hash' },
  { '^pod:', 'hash' }, { '^sq:claim:', 'list' }, { '^node:', 'hash' }, { '^cs:', 'set' }, { '^[pr]q:', 'list' },
  { '^nq:', 'stream' }, { '^sessions:', 'zset' }, { '^session:.*:in$', 'stream' }, { '^session:.*:out$', 'stream' },
  { '^session:', 'hash' }, { '^logs:', 'hash' }, { '^decision:', 'string' },
}

local prefix, may_write = '', false -- of the call that runs
local write_wrong_type -- says what was moved; it needs what is defined below

-- Moves a key of ours out of the way if it is of a wrong type: it holds nothing of ours, and would hold up
-- for ever what does. Answers whether it did.
local function write_quarantine(raw, key)
  local name = string.sub(key, 1, #prefix) == prefix and string.sub(key, #prefix + 1) or ''
  local kind = KINDS[name]
  for _, known in ipairs(kind and {} or KINDS_BY_NAME) do
    if string.find(name, known[1]) then
      kind = known[2]
      break
    end
  end
  local found = kind and raw.call('TYPE', key).ok
  if not kind or found == kind or found == 'none' then
    return false
  end
  local time = raw.call('TIME')
  local now = string.format('%.0f', tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  local moved = raw.pcall('HINCRBY', prefix .. 'dead:totals', 'moved', 1)
  local away = prefix .. 'quarantine:' .. now .. '-' .. (type(moved) == 'number' and moved or 0) .. ':' .. name
  local renamed = raw.pcall('RENAME', key, away)
  if renamed.err then
    return false -- this user may not read what lies there: another one moves it
  end
  raw.call('EXPIRE', away, QUARANTINE_S)
  local index = prefix .. 'quarantine'
  if raw.call('TYPE', index).ok ~= 'zset' then
    raw.call('DEL', index)
  end
  raw.call('ZADD', index, now, away)
  if raw.call('ZCARD', index) > QUARANTINE_MAX then
    raw.call('UNLINK', raw.call('ZPOPMIN', index)[1])
  end
  write_wrong_type(key, found, kind, away)
  return true
end

-- In place of what Redis gives: a command that meets a key of a wrong type is tried once more when that is
-- out of the way. Functions that only read get the error.
local function given() -- looked for at each use: it is another one while the library is loaded
  return redis
end

local redis = (function()
  local function guarded(...)
    local raw = given()
    local result = raw.pcall(...)
    if type(result) == 'table' and result.err and may_write and string.find(result.err, 'WRONGTYPE', 1, true) then
      local moved = false
      for _, argument in ipairs({ ... }) do -- a few commands name several keys
        moved = type(argument) == 'string' and #argument > #prefix and write_quarantine(raw, argument) or moved
      end
      if moved then
        return raw.pcall(...)
      end
    end
    return result
  end
  return {
    pcall = guarded,
    call = function(...)
      local result = guarded(...)
      if type(result) == 'table' and result.err then
        error(result)
      end
      return result
    end,
    error_reply = function(text)
      return given().error_reply(text)
    end,
    acl_check_cmd = function(...)
      return given().acl_check_cmd(...)
    end,
    register_function = function(declared)
      return given().register_function(declared)
    end,
    quarantine = function(key)
      return write_quarantine(given(), key)
    end,
  }
end)()

---------------------------------------------------------------------------------------------------
-- Helpers. None writes unless its name says so.

local function prefix_of(keys)
  return string.sub(keys[1], 1, -(#'cluster' + 1))
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- The fields of a hash; all false if the key holds something else.
local function fields_of(key, ...)
  local fields = redis.pcall('HMGET', key, ...)
  if fields.err then
    return {}
  end
  return fields
end

local function number(value)
  return tonumber(value or 0) or 0
end

-- An amount as a whole number; zero if what stands there is none, as a person may write anything.
local function amount(value)
  local given = number(value)
  if given >= 0 and given < 2 ^ 53 then -- false for nan
    return math.floor(given)
  end
  return 0
end

-- A sum as text: never negative, never with an exponent, whatever a person wrote into it.
local function whole(value)
  return string.format('%.0f', math.max(0, value))
end

local function shortened(text, length_max)
  if #text > length_max then
    return string.sub(text, 1, length_max)
  end
  return text
end

local function queue_of(p, priority)
  if priority == 'high' or priority == 'low' then
    return p .. 'sq:' .. priority
  end
  return p .. 'sq'
end

-- Writes that a waiting pod goes before others of its queue; the list holds it as well.
local function write_ranked(p, queue, rank, id)
  if rank then
    local key = queue == p .. 'sq' and p .. 'sq:ranked' or queue .. ':ranked'
    redis.pcall('ZADD', key, rank, id)
  end
end

local function is_on_node(phase)
  local rank = RANK[phase]
  return rank ~= nil and rank >= 1 and rank <= 3
end

-- Events of the call that runs; `define` writes them at its end, so that they share entries.
local events = {}

-- Writes that something happened, for one reason, to many: `pairs_` is flat: subject, node, subject,
-- node ... `kind` is a pod's new phase, or stopping, moving, staying, rebalance-suggested, parked, held, ready, unready,
-- restarted; of a service
-- or a node it begins with that word; wrong-type, dead-letter and store-lost are of keys. `by` is one of user,
-- controller, scheduler, agent, sweep, hand, recovery. `owner` is the pods' owner, or a list of one for
-- each. The tables given are kept: they must not be used again.
local function write_event(p, kind, by, pairs_, reason, owner)
  reason = shortened(reason or '', REASON_MAX)
  local owners = owner
  if type(owner) ~= 'table' then
    owners = {}
    for position = 1, #pairs_ / 2 do
      owners[position] = owner or ''
    end
  end
  local group = events[#events]
  if not group or group.kind ~= kind or group.by ~= by or group.reason ~= reason then
    events[#events + 1] = { kind = kind, by = by, reason = reason, pairs = pairs_, owners = owners }
    return
  end
  for position = 1, #pairs_ do
    group.pairs[#group.pairs + 1] = pairs_[position]
  end
  for position = 1, #owners do
    group.owners[#group.owners + 1] = owners[position]
  end
end

-- Writes by a command whose key a person may have given a wrong type; `redis.call` moves that out of the way.
local function write_over(_, command, key, ...)
  return redis.call(command, key, ...)
end

-- Writes dead letters, each {entry, where, why, entry as it may be shown}, and lets the oldest go.
local function write_letters(p, letters, now)
  local shown, whole = {}, {}
  local count = redis.call('HINCRBY', p .. 'dead:totals', 'added', #letters)
  for position = math.max(1, #letters - DEAD_MAX + 1), #letters do
    local letter = letters[position]
    local id = string.format('%.0f-%.0f', now, count - #letters + position)
    local is_whole = #letter[1] <= DEAD_WHOLE_MAX
    shown[#shown + 1] = cjson.encode({
      id = id,
      entry = shortened(letter[4], DEAD_ENTRY_MAX),
      where = letter[2],
      why = shortened(letter[3], REASON_MAX),
      when_ms = now,
      whole = is_whole,
    })
    if is_whole then
      whole[#whole + 1] = id
      whole[#whole + 1] = letter[1]
    end
  end
  redis.call('LPUSH', p .. 'dead', unpack(shown))
  if #whole > 0 then
    redis.call('HSET', p .. 'dead:entries', unpack(whole))
  end
  local over = redis.call('LLEN', p .. 'dead') - DEAD_MAX
  local dropped = #letters - #shown
  if over > 0 then
    local ids = {}
    for _, letter in ipairs(redis.call('RPOP', p .. 'dead', math.min(over, DEAD_MAX))) do
      ids[#ids + 1] = string.match(letter, '"id":"([^"]*)"')
    end
    if #ids > 0 then
      redis.call('HDEL', p .. 'dead:entries', unpack(ids))
    end
    dropped = dropped + over
  end
  if dropped > 0 then
    redis.call('HINCRBY', p .. 'dead:totals', 'dropped', dropped)
  end
end

write_wrong_type = function(key, found, kind, away)
  local why = 'it was a ' .. found .. ', not a ' .. kind .. ', and is kept as ' .. away
  write_event(prefix, 'wrong-type', 'hand', { key, '' }, why)
  write_letters(prefix, { { away, 'quarantine', key .. ': ' .. why, away } }, now_ms())
end

-- Writes the events of the call. An owner that all pods of an entry share stands in its head; else
-- that says `each`, and each pod's owner stands before its node.
local function write_events(p)
  for _, group in ipairs(events) do
    local flat, owners = group.pairs, group.owners
    for first = 1, #owners, EVENT_PODS_MAX do
      local last = math.min(#owners, first + EVENT_PODS_MAX - 1)
      local owner = owners[first]
      for position = first + 1, last do
        if owners[position] ~= owner then
          owner = 'each'
          break
        end
      end
      if owner == 'each' then
        for position = first, last do
          flat[position * 2] = owners[position] .. ' ' .. flat[position * 2]
        end
      end
      write_over(p, 'XADD', p .. 'events', 'MAXLEN', '~', EVENTS_MAX, '*', 'kind', group.kind, 'by', group.by,
        'owner', owner, 'reason', group.reason, unpack(flat, first * 2 - 1, last * 2))
    end
  end
end

-- Writes pods to the end (LPUSH) or the front (RPUSH) of their queues; `by_queue` maps queue to entries.
local function write_queues(p, by_queue, command)
  for queue, entries in pairs(by_queue) do
    write_over(p, command, queue, unpack(entries))
  end
end

local function add_to(map, key, entry)
  local entries = map[key]
  if entries then
    entries[#entries + 1] = entry
  else
    map[key] = { entry }
  end
end

-- Whether the caller may write to a node's inbox and set. The user of another agent may not: that node
-- finds out by comparing, as if the word to it had been lost.
local function may_reach(p, node)
  return redis.acl_check_cmd('LPUSH', p .. 'pq:' .. node, '')
end

-- Adds the amounts of a pod's `asks` to a table of sums by word; devices are none.
local function add_amounts(sums, asks)
  for word, asked in string.gmatch(asks or '', '([^=,]+)=(%d+)') do
    if AMOUNTS[word] then
      sums[word] = (sums[word] or 0) + amount(asked)
    end
  end
  return sums
end

-- Such sums as text: `disk=4096,pids=9`.
local function amounts_text(sums)
  local words = {}
  for word in pairs(AMOUNTS) do
    if (sums[word] or 0) > 0 then
      words[#words + 1] = word .. '=' .. whole(sums[word])
    end
  end
  table.sort(words)
  return table.concat(words, ',')
end

-- What the pods assigned to a node take of it: count, cpu, memory, fixed ports, amounts and devices.
local function sums_of(p, node)
  local pods, cpu, memory, ports, asked, used = 0, 0, 0, ',', {}, ','
  local ids = redis.pcall('SMEMBERS', p .. 'cs:' .. node)
  if ids.err then
    ids = {}
  end
  for _, id in ipairs(ids) do
    local pod = fields_of(p .. 'pod:' .. id, 'phase', 'node', 'cpu', 'memory', 'host_ports', 'asks', 'devices')
    if pod[2] == node and is_on_node(pod[1]) then
      pods, cpu, memory = pods + 1, cpu + amount(pod[3]), memory + amount(pod[4])
      if pod[5] then
        ports = ports .. pod[5] .. ','
      end
      if pod[6] then
        add_amounts(asked, pod[6])
        used = pod[7] and used .. pod[7] .. ',' or used
      end
    end
  end
  return pods, cpu, memory, ports, amounts_text(asked), used
end

-- The fixed ports in use on a node: as its record says, or counted where that says nothing.
local function ports_of(p, node)
  local ports = fields_of(p .. 'node:' .. node, 'ports')[1]
  if ports and (ports == ',' or string.find(ports, '^,.*,$')) then
    return ports
  end
  return (select(4, sums_of(p, node)))
end

-- One of a pod's fixed ports that is in use.
local function taken_port(ports, host_ports)
  for port in string.gmatch(host_ports, '[^,]+') do
    if string.find(ports, ',' .. port .. ',', 1, true) then
      return port
    end
  end
end

-- A list such as `,80/tcp,53/udp,` without the first of each item of another, such as `53/udp`.
local function without(list, items)
  for item in string.gmatch(items, '[^,]+') do
    local first, last = string.find(list, ',' .. item .. ',', 1, true)
    if first then
      list = string.sub(list, 1, first) .. string.sub(list, last + 1)
    end
  end
  return list
end

-- What a node offers beside cpu and memory, and what is asked of it: amounts, free devices by kind in
-- the order it names them, and those in use. Counted where its record does not say.
local function stock_of(p, node)
  local fields = fields_of(p .. 'node:' .. node, 'offers', 'devices', 'asked', 'devices_used')
  local asked, used = fields[3], fields[4]
  if not asked or not used or not string.find(used, '^,') then
    asked, used = select(5, sums_of(p, node))
  end
  local stock = { offers = add_amounts({}, fields[1]), asked = add_amounts({}, asked), used = used, free = {} }
  for device in string.gmatch(fields[2] or '', '[^,]+') do
    local kind = string.match(device, '^([^/]+)/')
    if kind and not string.find(used, ',' .. device .. ',', 1, true) then
      add_to(stock.free, kind, device)
    end
  end
  return stock
end

-- Takes what a pod asks for out of a node's stock. Answers the devices it is given, as a list, which
-- may be empty; or nothing but the word that is lacking, and then nothing is taken.
local function take_stock(stock, asks)
  local sums = add_amounts({}, asks)
  for word, asked in string.gmatch(asks, '([^=,]+)=(%d+)') do
    local free = stock.free[word]
    if AMOUNTS[word] and (stock.asked[word] or 0) + sums[word] > (stock.offers[word] or 0)
      or not AMOUNTS[word] and amount(asked) > (free and #free or 0) then
      return nil, word
    end
  end
  local given = {}
  for word, asked in string.gmatch(asks, '([^=,]+)=(%d+)') do
    for _ = 1, AMOUNTS[word] and 0 or math.min(amount(asked), #(stock.free[word] or given)) do
      given[#given + 1] = table.remove(stock.free[word], 1)
    end
  end
  add_amounts(stock.asked, asks)
  given = table.concat(given, ',')
  if given ~= '' then
    stock.used = stock.used .. given .. ','
  end
  return given
end

local function write_stock(p, node, stock)
  redis.call('HSET', p .. 'node:' .. node, 'asked', amounts_text(stock.asked), 'devices_used', stock.used)
end

-- Writes that pods take what they ask for (`sign` 1), or give it back (-1), with the devices they hold.
local function write_asked(p, node, asks, devices, sign)
  local key = p .. 'node:' .. node
  local fields = fields_of(key, 'asked', 'devices_used')
  if not fields[1] or not fields[2] then
    return -- they are counted when somebody asks
  end
  local asked, moved, used = add_amounts({}, fields[1]), add_amounts({}, asks), fields[2]
  for word, count in pairs(moved) do
    asked[word] = (asked[word] or 0) + sign * count
  end
  if devices and devices ~= '' then
    used = sign > 0 and used .. devices .. ',' or without(used, devices)
  end
  redis.call('HSET', key, 'asked', amounts_text(asked), 'devices_used', used)
end

-- Writes that a pod takes room of its node.
local function write_taken(p, node, cpu, memory, host_ports, asks, devices)
  local key = p .. 'node:' .. node
  redis.pcall('HINCRBY', key, 'pods', 1)
  redis.pcall('HINCRBY', key, 'cpu_requested', cpu)
  redis.pcall('HINCRBY', key, 'memory_requested', memory)
  local ports = host_ports ~= '' and fields_of(key, 'ports')[1]
  if ports then -- else they are counted when somebody asks
    redis.call('HSET', key, 'ports', ports .. host_ports .. ',')
  end
  if asks and asks ~= '' then
    write_asked(p, node, asks, devices, 1)
  end
end

-- Writes back the room that pods took on their node; `host_ports`, `asks` and `devices` are theirs, if
-- they have any.
local function write_room(p, node, pods, cpu, memory, host_ports, asks, devices)
  local key = p .. 'node:' .. node
  redis.pcall('HINCRBY', key, 'pods', -pods)
  if amount(cpu) > 0 then
    redis.pcall('HINCRBY', key, 'cpu_requested', -amount(cpu))
  end
  if amount(memory) > 0 then
    redis.pcall('HINCRBY', key, 'memory_requested', -amount(memory))
  end
  local ports = host_ports and fields_of(key, 'ports')[1]
  if ports then
    redis.call('HSET', key, 'ports', without(ports, host_ports))
  end
  if asks then
    write_asked(p, node, asks, devices, -1)
  end
end

-- Adds to a new pod's fields what it wants of its node: fixed ports (`8080/tcp,53/udp`), nodes to
-- avoid (`a,b`), amounts and devices (`disk=4096,gpu=2`), wishes that its spec's placement holds, or a
-- rank; each may be empty. The field `wants` says that there is something, so that a claim reads one field of
-- an ordinary pod and not four.
local function add_wants(fields, host_ports, wishes, avoid, asks)
  for name, value in pairs({ host_ports = host_ports, avoid = avoid, asks = asks }) do
    if value ~= '' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  if host_ports ~= '' or wishes ~= '' or avoid ~= '' or asks ~= '' then
    fields[#fields + 1] = 'wants'
    fields[#fields + 1] = 1
  end
end

-- Whether a node's pods are to be moved elsewhere.
local function is_draining(p, node)
  return node and fields_of(p .. 'node:' .. node, 'draining')[1]
end

-- Writes a service's count of running pods after one of its pods moved.
local function write_running(p, owner, from, to)
  local before, after = RUNS[from], RUNS[to]
  local service = before ~= after and owner and string.match(owner, '^service:(.+)$')
  if service and redis.call('EXISTS', p .. 'service:' .. service) == 1 then
    redis.pcall('HINCRBY', p .. 'service:' .. service, 'running', after and 1 or -1)
  end
end

-- Writes parked pods back to their queues: room appeared, or their time has come.
local function write_unparked(p, ids)
  if #ids == 0 then
    return
  end
  redis.pcall('ZREM', p .. 'sq:parked', unpack(ids))
  local by_queue = {}
  for _, id in ipairs(ids) do
    local pod = fields_of(p .. 'pod:' .. id, 'priority', 'rank')
    add_to(by_queue, queue_of(p, pod[1]), id)
    write_ranked(p, queue_of(p, pod[1]), pod[2], id)
  end
  write_queues(p, by_queue, 'LPUSH')
end

local function write_room_is_there(p)
  write_unparked(p, redis.pcall('ZRANGE', p .. 'sq:parked', 0, ROOM_RELEASE - 1)) -- none of an error
end

-- Writes parked pods back because a node may suit them now that never did: they are tried as new ones.
local function write_nodes_changed(p)
  local ids = redis.call('ZRANGE', p .. 'sq:parked', 0, BATCH_MAX - 1)
  for _, id in ipairs(ids) do
    redis.pcall('HDEL', p .. 'pod:' .. id, 'tries')
  end
  write_unparked(p, ids)
end

-- Writes that a controller is to look at a service: at once, or at `due`.
local function write_changed(p, service, due)
  write_over(p, 'ZADD', p .. 'services:changed', due or now_ms(), service)
  if not due and redis.call('EXISTS', p .. 'services:wake') == 0 then
    redis.pcall('LPUSH', p .. 'services:wake', '1')
  end
end

-- Writes a service back among all, should a person have taken it out: nothing else leads to it once
-- no node has a pod of it.
local function write_listed(p, service)
  local listed = redis.pcall('ZSCORE', p .. 'services', service)
  if type(listed) ~= 'string' and redis.call('EXISTS', p .. 'service:' .. service) == 1 then
    write_over(p, 'ZADD', p .. 'services', 0, service)
    write_changed(p, service)
  end
end

-- As `write_changed`, for a service that a controller is at work on: all others are as they should be, and a
-- pod that came a step further changes nothing there.
local function write_pod_moved(p, owner)
  local service = owner and string.match(owner, '^service:(.+)$')
  if service and redis.pcall('ZSCORE', p .. 'services:changed', service) then
    write_changed(p, service)
  end
end

-- Writes a pod off its node: it waits again; the caller puts it in the queue.
local function write_waiting(p, id, owner, from, now, reason)
  local key = p .. 'pod:' .. id
  redis.call('HSET', key, 'phase', 'waiting', 'changed_ms', now, 'reason', reason)
  redis.call('HDEL', key, 'node', 'container', 'tries', 'ready', 'restarts', 'exit_code', 'ports', 'digest', 'moving',
    'price', 'victims', 'leaves', 'devices', 'fence')
  local pod = fields_of(key, 'priority', 'rank')
  write_ranked(p, queue_of(p, pod[1]), pod[2], id)
  write_running(p, owner, from, 'waiting')
  local service = owner and string.match(owner, '^service:(.+)$')
  if service then
    write_listed(p, service)
  end
  write_pod_moved(p, owner)
end

-- Writes which labels a service has (`app=web,tier=front`), by which others find it to be near to or
-- apart from its pods.
local function write_service_labels(p, service, labels)
  local key = p .. 'service:' .. service
  local known = fields_of(key, 'labels')[1] or ''
  local index = p .. 'services:with:' .. string.match(service, '^[^/]*') .. '/'
  if known ~= labels then
    for label in string.gmatch(known, '[^,]+') do
      redis.pcall('ZREM', index .. label, service)
    end
    redis.call('HSET', key, 'labels', labels)
  end
  for label in string.gmatch(labels, '[^,]+') do
    write_over(p, 'ZADD', index .. label, 0, service)
  end
end

-- Writes that a service was deleted, for nodes that know an older wish of it; the newest counts.
local function write_gone(key, uid, wish)
  if number(fields_of(key .. ':gone', 'wish')[1]) <= number(wish) then
    redis.call('HSET', key .. ':gone', 'uid', uid, 'wish', wish)
  end
  redis.call('EXPIRE', key .. ':gone', TOMBSTONE_S)
end

-- Writes a deleted service away once its last pod is gone.
local function write_service_end(p, service)
  local key = p .. 'service:' .. service
  local known = redis.call('HMGET', key, 'deleting', 'uid', 'wish')
  if known[1] and redis.pcall('ZCARD', key .. ':pods') == 0 then
    write_gone(key, known[2] or '', known[3] or '0')
    write_service_labels(p, service, '')
    redis.call('DEL', key)
    redis.pcall('ZREM', p .. 'services', service)
    redis.pcall('ZREM', p .. 'services:changed', service)
    write_event(p, 'service-deleted', 'user', { service, '' }, 'its last pod is gone')
  end
end

-- Whether a pod stays on a lost node: its service wants that, or the pod itself if it has none.
local function is_held(p, owner, own, known)
  local service = string.match(owner or '', '^service:(.+)$')
  if not service then
    return own == '1'
  end
  if known[service] == nil then
    known[service] = fields_of(p .. 'service:' .. service, 'hold')[1] == '1'
  end
  return known[service]
end

-- Turns a stopped pod into its tombstone, and forgets it everywhere else.
local function write_tombstone(p, id, owner, node)
  local key = p .. 'pod:' .. id
  redis.call('DEL', key)
  redis.call('HSET', key, 'desired', 'stop', 'phase', 'stopped', 'changed_ms', now_ms())
  redis.call('EXPIRE', key, TOMBSTONE_S)
  redis.pcall('ZREM', p .. 'sq:parked', id)
  if node then
    redis.pcall('SREM', p .. 'cs:' .. node, id)
  end
  local service = owner and string.match(owner, '^service:(.+)$')
  if service then
    redis.pcall('ZREM', p .. 'service:' .. service .. ':pods', id)
    write_service_end(p, service)
    write_listed(p, service)
    write_pod_moved(p, owner)
  else
    redis.pcall('ZREM', p .. 'pods', id)
  end
end

-- Writes the wish that a pod of `owner` stops, and why: by whom: at once where it has no living node,
-- else by its agent. A record that was taken away or damaged becomes a tombstone, which tells whoever has its
-- container, and so does, once more, a tombstone that something still leads to.
local function write_stop(p, id, owner, now, by, why)
  local key = p .. 'pod:' .. id
  local pod = fields_of(key, 'phase', 'desired', 'node', 'owner', 'hold')
  local phase, desired, node = pod[1], pod[2], pod[3]
  if not RANK[phase] or not pod[4] then
    write_event(p, 'stopped', by, { id, node or '' }, why, owner)
    write_tombstone(p, id, owner, node)
    return
  elseif desired == 'stop' then
    return
  end
  -- Held there: its container may run, and only its node or whoever removes that can tell.
  local is_with_node = node and is_on_node(phase) and is_held(p, pod[4], pod[5], {})
    and redis.pcall('ZSCORE', p .. 'nodes:lost', node)
  if not node or not is_with_node and not redis.pcall('ZSCORE', p .. 'nodes', node) then
    write_running(p, owner, phase, 'stopped')
    write_event(p, 'stopped', by, { id, node or '' }, why, owner)
    write_tombstone(p, id, owner, node)
  else
    redis.call('HSET', key, 'desired', 'stop', 'changed_ms', now, 'reason', why)
    -- An ended pod left the set when its node was lost; should that be lost again, the sweep ends it.
    if may_reach(p, node) then
      write_over(p, 'SADD', p .. 'cs:' .. node, id)
      write_over(p, 'LPUSH', p .. 'pq:' .. node, id)
    end
    write_event(p, 'stopping', by, { id, node }, why, owner)
  end
end

-- Milliseconds of a recovery that are left, or nothing: what the nodes hold is being put back, so nothing
-- is placed, planned or accepted on what may be old.
local function recovery_left(p, now)
  local cluster = redis.call('HMGET', p .. 'cluster', 'id', 'recover_until_ms')
  if not cluster[1] then
    return 1000 -- emptied a moment ago: whoever knows the cluster opens it again
  end
  local left_ms = number(cluster[2]) - now
  return left_ms > 0 and left_ms or nil
end

-- What an agent of another epoch is told. A lower one in Redis than the agent's own means that a
-- fail-over or a restore lost its registration: it is to register again. Only a higher one is another
-- agent, unless what stands there may be of a time before the node's record began anew.
local function refusal_of(p, known, epoch)
  if number(known) < number(epoch) or recovery_left(p, now_ms()) then
    return { 'unknown' }
  end
  return { 'superseded' }
end

-- Registers a function: one key, at least `arity` arguments.
local function define(name, arity, flags, body)
  redis.register_function({
    function_name = name,
    callback = function(keys, args)
      if #keys ~= 1 or string.sub(keys[1], -#'cluster') ~= 'cluster' then
        return redis.error_reply('KLBADARG ' .. name .. ' takes one key, <prefix>cluster')
      end
      if #args < arity then
        return redis.error_reply('KLBADARG ' .. name .. ' takes at least ' .. arity .. ' arguments')
      end
      events = {}
      local p = prefix_of(keys)
      prefix, may_write = p, flags[1] ~= 'no-writes'
      local reply = body(p, args)
      write_events(p)
      return reply
    end,
    flags = flags,
  })
end

-- The same, for a function that must not work on what may be old: while what the nodes hold is put
-- back it answers `recovering`, ms left.
local function define_on_whole(name, arity, flags, body)
  define(name, arity, flags, function(p, args)
    local left_ms = recovery_left(p, now_ms())
    if left_ms then
      return { 'recovering', tostring(left_ms) }
    end
    return body(p, args)
  end)
end

local CREATES = {} -- refused in a full Redis
local KEEPS = { 'allow-oom' }
local READS = { 'no-writes' }

---------------------------------------------------------------------------------------------------
-- Cluster

-- The library's version. Reply: a number.
define('kl_library_version', 0, READS, function()
  return VERSION
end)

-- The oldest version of this library whose processes may go on with this one. Reply: a number.
define('kl_library_serves', 0, READS, function()
  return SERVES
end)

-- Opens a cluster: makes it if it is not there.
-- ARGV: id for a new cluster. Reply: opened, schema, id
define('kl_cluster_open', 1, CREATES, function(p, args)
  local key = p .. 'cluster'
  if not redis.call('HGET', key, 'id') then
    redis.call('HSET', key, 'id', args[1], 'schema', SCHEMA, 'created_ms', now_ms())
  end
  local cluster = redis.call('HMGET', key, 'schema', 'id')
  return { 'opened', cluster[1], cluster[2] }
end)

---------------------------------------------------------------------------------------------------
-- Memory

-- What each state of memory begins at is an argument; it ends MEMORY_CALM percent lower, or it would flicker.
local MEMORY_CALM = 3

-- How full Redis is; an event tells where that is another state than it was.
-- ARGV: percent from which it is filling, and from which it is nearly full.
-- Reply: calm or filling or nearly-full, bytes in use, most bytes (0: no bound)
define('kl_memory_check', 2, KEEPS, function(p, args)
  local info = redis.call('INFO', 'memory')
  local used = tonumber(string.match(info, '\nused_memory:(%d+)')) or 0
  local max = tonumber(string.match(info, '\nmaxmemory:(%d+)')) or 0
  local percent = max > 0 and 100 * used / max or 0
  local cluster = redis.call('HMGET', p .. 'cluster', 'id', 'memory')
  local known = cluster[2] or 'calm'
  local function is_from(percent_min, stays)
    return percent >= percent_min - (stays and MEMORY_CALM or 0)
  end
  local state = 'calm'
  if is_from(number(args[2]), known == 'nearly-full') then
    state = 'nearly-full'
  elseif is_from(number(args[1]), known ~= 'calm') then
    state = 'filling'
  end
  if cluster[1] and state ~= known then
    redis.call('HSET', p .. 'cluster', 'memory', state)
    local reason = string.format('%.0f of %.0f bytes are in use', used, max)
    write_event(p, 'store-' .. state, 'hand', { 'memory', '' }, reason)
  end
  return { state, whole(used), whole(max) }
end)

---------------------------------------------------------------------------------------------------
-- Mending: what a person took away or damaged is put right from what is left

-- Writes back what leads to a pod that its agent asked for: its entry in its node's set and in its
-- owner's index, and that owner among all. A pod older than its service is one of another service of
-- that name, which was deleted while nothing led to the pod: it is told to stop.
-- `seen` are the services of a call that were looked for already.
local function write_led_to(p, id, node, pod, seen)
  if is_on_node(pod.phase) then
    write_over(p, 'SADD', p .. 'cs:' .. node, id)
  end
  local service = string.match(pod.owner, '^service:(.+)$')
  if service and not seen[service] then
    seen[service] = true
    write_listed(p, service)
  end
  local index = service and p .. 'service:' .. service .. ':pods' or p .. 'pods'
  if type(redis.pcall('ZSCORE', index, id)) == 'string' then
    return
  end
  local since_ms = service and fields_of(p .. 'service:' .. service, 'created_ms')[1]
  local gone = service and not since_ms and redis.call('EXISTS', p .. 'service:' .. service .. ':gone') == 1
  if not service then
    write_over(p, 'ZADD', index, 0, id)
  elseif gone or since_ms and number(pod.created_ms) < number(since_ms) then
    write_stop(p, id, pod.owner, now_ms(), 'recovery', 'its service was deleted')
  elseif since_ms then -- absence of a service is no order
    write_over(p, 'ZADD', index, amount(pod.replica), id)
    write_changed(p, service)
  end
end

-- Writes a pod off a node that has none of it: it waits again, or is no more if it was to stop or
-- nobody can say where it was; a comparison has its service look.
local function write_off(p, id, owner, phase, desired, node, now, reason)
  if desired == 'stop' or not is_on_node(phase) then
    write_running(p, owner, phase, 'stopped')
    write_event(p, 'stopped', 'recovery', { id, node or '' }, reason, owner)
    write_tombstone(p, id, owner, node)
  else
    write_event(p, 'waiting', 'recovery', { id, node or '' }, reason, owner)
    write_waiting(p, id, owner, phase, now, reason)
  end
end

-- Writes what a sweep has put aside back among the pods of a node.
local function write_held_back(p, node)
  local cs, aside = p .. 'cs:' .. node, p .. 'cs:' .. node .. ':held'
  if redis.call('EXISTS', aside) == 1 then
    if type(redis.pcall('SUNIONSTORE', cs, cs, aside)) ~= 'number' then
      redis.call('DEL', cs) -- a person wrote something else there
      redis.call('SUNIONSTORE', cs, aside)
    end
    redis.call('DEL', aside)
  end
end

-- Whether two lists hold the same, in whatever order.
local function same_items(one, other)
  if one == other then
    return true
  end
  local counts = {}
  for item in string.gmatch(one, '[^,]+') do
    counts[item] = (counts[item] or 0) + 1
  end
  for item in string.gmatch(other, '[^,]+') do
    counts[item] = (counts[item] or 0) - 1
  end
  for _, count in pairs(counts) do
    if count ~= 0 then
      return false
    end
  end
  return true
end

-- Moves away what is of a wrong type among the keys of which there is one. Reply: mended, keys
define('kl_cluster_mend', 0, KEEPS, function(p)
  local count = 0
  for name in pairs(KINDS) do
    count = count + (redis.quarantine(p .. name) and 1 or 0)
  end
  return { 'mended', tostring(count) }
end)

-- The same for keys that somebody met. ARGV: keys, at most BATCH_MAX. Reply: mended, keys
define('kl_key_mend', 0, KEEPS, function(_, args)
  local count = 0
  for position = 1, math.min(#args, BATCH_MAX) do
    count = count + (redis.quarantine(args[position]) and 1 or 0)
  end
  return { 'mended', tostring(count) }
end)

-- Names the pods of a node, and sets right its set and its sums, should they have been changed: no
-- pod of another node is in the set, and the sums are those of its pods.
-- ARGV: node. Reply: compared, pod ...
define('kl_node_compare', 1, KEEPS, function(p, args)
  local node = args[1]
  local key, cs = p .. 'node:' .. node, p .. 'cs:' .. node
  redis.quarantine(cs)
  write_held_back(p, node)
  redis.quarantine(p .. 'pq:' .. node)
  redis.quarantine(p .. 'rq:' .. node)
  local ids = redis.call('SMEMBERS', cs)
  local reply = { 'compared' }
  for _, id in ipairs(ids) do
    if fields_of(p .. 'pod:' .. id, 'node')[1] == node then
      reply[#reply + 1] = id
    else
      redis.call('SREM', cs, id)
    end
  end
  local known = fields_of(key, 'epoch', 'pods', 'cpu_requested', 'memory_requested', 'ports', 'asked', 'devices_used')
  local pods, cpu, memory, ports, asked, used = sums_of(p, node)
  local told = number(known[2]) == pods and number(known[3]) == cpu and number(known[4]) == memory
    and same_items(known[5] or ',', ports) and (known[6] or '') == asked and same_items(known[7] or ',', used)
  if known[1] and not told then
    redis.call('HSET', key, 'pods', pods, 'cpu_requested', whole(cpu), 'memory_requested', whole(memory),
      'ports', ports, 'asked', asked, 'devices_used', used)
    write_event(p, 'node-recounted', 'recovery', { node, '' }, string.format('%.0f pods are there', pods))
    write_room_is_there(p)
  end
  return reply
end)

---------------------------------------------------------------------------------------------------
-- Services: a wish becomes pods in the queue

-- Writes new pods of a service, all of its current revision: hash, index and queue entry.
-- `pods` are { id, replica, reason, avoided nodes, retries }.
local function write_pods(p, service, now, pods, by)
  local key = p .. 'service:' .. service
  local wish = redis.call('HMGET', key, 'revision', 'priority', 'cpu', 'memory', 'host_ports', 'wishes',
    'replicas', 'rank', 'asks')
  local common = {
    'phase', 'waiting', 'desired', 'run', 'attempt', 0, 'owner', 'service:' .. service, 'revision', wish[1],
    'created_ms', now, 'changed_ms', now, -- a small hash is read from its front
  }
  local function add(fields, name, value)
    if value and value ~= '' and value ~= '0' then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  add(common, 'cpu', wish[3])
  add(common, 'memory', wish[4])
  add(common, 'priority', wish[2] ~= 'normal' and wish[2])
  add(common, 'rank', wish[8])
  local ids, index = {}, {}
  local wanted = string.format('its service wants %.0f', number(wish[7]))
  for _, pod in ipairs(pods) do
    local id, replica = pod[1], pod[2]
    local own = { unpack(common) }
    own[#own + 1] = 'replica'
    own[#own + 1] = replica
    add(own, 'reason', pod[3])
    add_wants(own, wish[5] or '', (wish[6] or '') .. (wish[8] or ''), pod[4] or '', wish[9] or '')
    add(own, 'retries', pod[5])
    redis.call('HSET', p .. 'pod:' .. id, unpack(own))
    ids[#ids + 1] = id
    write_ranked(p, queue_of(p, wish[2]), wish[8] ~= '' and wish[8], id)
    index[#index + 1] = replica
    index[#index + 1] = id
    write_event(p, 'waiting', by, { id, '' }, (pod[3] or '') ~= '' and pod[3] or wanted, 'service:' .. service)
  end
  if #ids > 0 then
    write_over(p, 'ZADD', key .. ':pods', unpack(index))
    write_over(p, 'LPUSH', queue_of(p, wish[2]), unpack(ids))
  end
end

-- An id for a new pod that no pod has or had: the submission and the replica make it, so that a
-- repeated call makes the same; what follows sets later ones apart.
local function new_id(p, submission, replica, now)
  local id = submission .. '-' .. replica
  if redis.call('EXISTS', p .. 'pod:' .. id) == 1 then
    id = id .. '-' .. string.format('%.0f', now)
  end
  return id
end

-- Moves `split`, the number of replicas that were ever made, one bounded step towards `replicas`; a
-- deleted service's pods are stopped by as many. All else is for the controllers to plan.
local function write_split(p, service, now, step_max)
  local key = p .. 'service:' .. service
  local fields = redis.call('HMGET', key, 'replicas', 'split', 'submission', 'deleting')
  local replicas, split, submission = number(fields[1]), number(fields[2]), fields[3]
  if fields[4] then
    local first = math.max(0, split - step_max)
    local ids = redis.pcall('ZRANGEBYSCORE', key .. ':pods', first, '+inf', 'LIMIT', 0, BATCH_MAX)
    for _, id in ipairs(ids) do
      write_stop(p, id, 'service:' .. service, now, 'user', 'its service was deleted')
    end
    split = first
  elseif split < replicas then
    local last = math.min(replicas, split + step_max)
    local pods = {}
    for replica = split, last - 1 do
      pods[#pods + 1] = { new_id(p, submission, replica, now), replica }
    end
    write_pods(p, service, now, pods, 'user')
    split = last
  end
  if redis.call('EXISTS', key) == 1 then -- the last tombstone of a deleted service takes it away
    redis.call('HSET', key, 'split', split)
    redis.call('HINCRBY', key, 'turn', 1)
    if fields[4] then
      write_service_end(p, service)
    elseif split < replicas then
      write_over(p, 'ZADD', p .. 'services:changed', 'NX', now + SPLIT_IDLE_MS, service)
    end
  end
  return split
end

local function step_of(argument)
  return math.max(1, math.min(BATCH_MAX, number(argument)))
end

-- Whether a wish may not be changed now: a word, or nothing. `expected` is the revision it was read
-- with, or empty.
local function refusal_of_change(known_revision, deleting, expected)
  if deleting then
    return 'deleting'
  elseif expected ~= '' and (known_revision or '0') ~= expected then
    return 'moved'
  end
end

-- Writes a wish's next revision.
local function write_revision(p, key, args, revision, now)
  redis.call('HSET', key, 'revision', revision, 'spec:' .. revision, args[2], 'revised_ms:' .. revision, now,
    'submission', args[4], 'cpu', args[5], 'memory', args[6], 'priority', args[7],
    'host_ports', args[12], 'wishes', args[13], 'rank', args[18] or '', 'kept', args[19] or '', 'asks', args[20] or '',
    'hold', args[21] or '')
  redis.call('HDEL', key, 'spec:' .. (revision - REVISIONS_MAX), 'revised_ms:' .. (revision - REVISIONS_MAX),
    'digest:' .. (revision - REVISIONS_MAX))
end

-- Writes the login of the image's registry, which is no part of any revision.
local function write_registry(key, registry)
  if registry == '' then
    redis.call('HDEL', key, 'registry')
  else
    redis.call('HSET', key, 'registry', registry)
  end
end

local function write_scaled(p, service, from, to)
  write_event(p, 'service-scaled', 'user', { service, '' }, string.format('from %.0f to %.0f', from, to))
end

-- A number for a new wish: higher than all before, also after a fail-over to a slow clock.
local function next_wish(key, now)
  return string.format('%.0f', math.max(now, number(redis.call('HGET', key, 'wish')) + 1))
end

-- Submits a service: the record is the commit; its first pods are made in the same call, the rest
-- by kl_service_split, which any controller carries on if the caller dies. A wish that stands is
-- changed by the mode `apply`, and a conflict for `create`.
-- ARGV: service, spec, replicas (for `apply` may be empty: as they are), submission, cpu, memory,
--       priority, step, idempotency key (namespaced, may be empty), hash of the request, its ttl in
--       ms, host ports, wishes (1 if its placement holds any), registry (each may be empty), mode, expected revision (may
--       be empty), labels, rank (within its priority), 1 if its pods are never preempted, asks, 1 if they stay
--       on a lost node (these five may be empty or left out)
-- Reply: created, revision, split, created_ms · exists, revision, created_ms (the same wish stands)
--        changed, revision, created_ms, split · repeated, submission, revision, created_ms
--        conflict (another spec) · moved, revision (not the expected one) · deleting · mismatch (of the key)
define_on_whole('kl_service_submit', 16, CREATES, function(p, args)
  local service, spec, submission, step_max = args[1], args[2], args[4], step_of(args[8])
  local idempotency, request, ttl_ms = args[9], args[10], number(args[11])
  local registry, mode, expected = args[14], args[15], args[16]
  local key = p .. 'service:' .. service
  local answer_key = p .. 'idempotency:' .. idempotency
  if idempotency ~= '' then
    local answer = redis.call('HMGET', answer_key, 'request', 'submission', 'revision', 'created_ms', 'word')
    if answer[1] then
      if answer[1] ~= request then
        return { 'mismatch' }
      end
      redis.call('HSET', answer_key, 'request', request) -- so that the caller's WAIT covers it
      if answer[5] == 'exists' then
        return { 'exists', answer[3], answer[4] }
      end
      return { 'repeated', answer[2], answer[3], answer[4] }
    end
  end
  local function write_answer(word, made_by, revision, created_ms)
    if idempotency ~= '' then
      redis.call('HSET', answer_key, 'word', word, 'request', request, 'submission', made_by,
        'revision', revision, 'created_ms', created_ms)
      redis.call('PEXPIRE', answer_key, ttl_ms)
    end
  end
  local known = redis.call('HMGET', key,
    'revision', 'replicas', 'deleting', 'created_ms', 'submission', 'split', 'registry')
  local revision = known[1]
  local replicas = args[3] == '' and number(known[2] or 1) or number(args[3])
  local now = now_ms()
  local same_spec = revision and redis.call('HGET', key, 'spec:' .. revision) == spec
  if same_spec and number(known[2]) == replicas and known[5] == submission and not known[3] then
    -- The caller asks again, having missed the answer.
    redis.call('HSET', key, 'revision', revision) -- so that the caller's WAIT covers it
    if revision == '1' then
      return { 'created', revision, known[6], known[4] }
    end
    return { 'changed', revision, known[4], known[6] }
  end
  local refusal = refusal_of_change(revision, known[3], expected)
  if refusal then
    return { refusal, revision or '0' }
  end
  if not revision then
    redis.call('HSET', key, 'uid', submission, 'replicas', replicas, 'split', 0, 'turn', 0,
      'created_ms', now, 'wish', string.format('%.0f', now))
    write_revision(p, key, args, 1, now)
    write_service_labels(p, service, args[17] or '')
    write_registry(key, registry)
    write_over(p, 'ZADD', p .. 'services', 0, service)
    write_answer('created', submission, 1, now)
    write_event(p, 'service-created', 'user', { service, '' }, string.format('wants %.0f', replicas))
    local split = write_split(p, service, now, step_max)
    return { 'created', '1', tostring(split), tostring(now) }
  end
  local same_registry = (known[7] or '') == registry
  if same_spec and number(known[2]) == replicas and (same_registry or mode == 'create') then
    redis.call('HSET', key, 'revision', revision) -- so that the caller's WAIT covers it
    write_answer('exists', known[5], revision, known[4])
    return { 'exists', revision, known[4] }
  elseif mode == 'create' then
    return { 'conflict' }
  end
  if not same_spec then
    revision = string.format('%.0f', number(revision) + 1)
    write_revision(p, key, args, number(revision), now)
    write_service_labels(p, service, args[17] or '')
    write_event(p, 'service-changed', 'user', { service, '' }, 'now at revision ' .. revision)
  end
  if number(known[2]) ~= replicas then
    write_scaled(p, service, number(known[2]), replicas)
  end
  write_registry(key, registry)
  redis.call('HSET', key, 'replicas', replicas, 'submission', submission, 'wish', next_wish(key, now))
  write_changed(p, service)
  local split = write_split(p, service, now, step_max)
  return { 'changed', revision, known[4], tostring(split) }
end)

-- Carries a split on by one step; also in a full Redis, for what was accepted is kept, and what is
-- deleted makes room. ARGV: service, step. Reply: split, made so far, wanted · absent
define_on_whole('kl_service_split', 2, KEEPS, function(p, args)
  local known = redis.call('HMGET', p .. 'service:' .. args[1], 'replicas', 'deleting', 'split')
  if not known[1] then
    redis.pcall('ZREM', p .. 'services:changed', args[1])
    return { 'absent' }
  end
  local split = write_split(p, args[1], now_ms(), step_of(args[2]))
  if not known[2] then -- fewer may be wanted than were ever made
    return { 'split', tostring(math.min(split, number(known[1]))), known[1] }
  end
  return { 'split', tostring(split), '0' }
end)

-- Changes how many pods a service has; `may_grow` tells the two functions below apart.
local function scale(p, args, may_grow)
  local service, replicas, submission = args[1], number(args[2]), args[3]
  local key = p .. 'service:' .. service
  local known = redis.call('HMGET', key, 'replicas', 'deleting', 'revision', 'submission')
  if not known[1] then
    return { 'absent' }
  end
  if known[4] ~= submission then -- else the caller asks again, having missed the answer
    local refusal = refusal_of_change(known[3], known[2], args[5])
    if refusal then
      return { refusal, known[3] }
    end
    if replicas > number(known[1]) and not may_grow then
      return { 'grows' }
    end
    local now = now_ms()
    redis.call('HSET', key, 'replicas', replicas, 'submission', submission, 'wish', next_wish(key, now))
    write_changed(p, service)
    write_scaled(p, service, number(known[1]), replicas)
  end
  local split = write_split(p, service, now_ms(), step_of(args[4]))
  return { 'scaled', tostring(math.min(split, replicas)), tostring(replicas) }
end

-- Changes how many pods a service has: new ones are made here, which of them go the controller
-- plans. ARGV: service, replicas, submission, step, expected revision (may be empty).
-- Reply: scaled, made so far, wanted · absent · deleting · moved, revision
define_on_whole('kl_service_scale', 5, CREATES, function(p, args)
  return scale(p, args, true)
end)

-- The same, but only down: for a full Redis, which refuses the other. Reply: as above · grows
define_on_whole('kl_service_shrink', 5, KEEPS, function(p, args)
  return scale(p, args, false)
end)

-- Deletes a service: its pods are stopped, then it is forgotten.
-- ARGV: service, step, expected revision (may be empty).
-- Reply: deleting, pods still to be told, 0 · absent · moved, revision
define_on_whole('kl_service_delete', 3, KEEPS, function(p, args)
  local service = args[1]
  local key = p .. 'service:' .. service
  local known = redis.call('HMGET', key, 'revision', 'deleting')
  if not known[1] then
    return { 'absent' }
  end
  local now = now_ms()
  if not known[2] then
    local refusal = refusal_of_change(known[1], nil, args[3])
    if refusal then
      return { refusal, known[1] }
    end
    redis.call('HSET', key, 'replicas', 0, 'deleting', 1, 'wish', next_wish(key, now))
    write_event(p, 'service-deleting', 'user', { service, '' }, 'its pods stop first')
  end
  write_changed(p, service)
  local split = write_split(p, service, now, step_of(args[2]))
  return { 'deleting', tostring(split), '0' }
end)

---------------------------------------------------------------------------------------------------
-- The controller: wishes become pods, from whatever state

-- Claims services that are due for a look; another controller gets them after `lease`.
-- ARGV: most services, lease in ms. Reply: claimed, {service, due} ...
define_on_whole('kl_service_claim', 2, KEEPS, function(p, args)
  local now = now_ms()
  local due = string.format('%.0f', now + number(args[2]))
  local changed = p .. 'services:changed'
  local found = redis.call('ZRANGEBYSCORE', changed, '-inf', now, 'LIMIT', 0, step_of(args[1]))
  local reply = { 'claimed' }
  for _, service in ipairs(found) do
    if redis.call('EXISTS', p .. 'service:' .. service) == 1 then
      write_listed(p, service)
      redis.call('ZADD', changed, due, service)
      reply[#reply + 1] = { service, due }
    else
      redis.call('ZREM', changed, service)
    end
  end
  if redis.call('ZCOUNT', changed, '-inf', now) == 0 then
    redis.call('DEL', p .. 'services:wake')
  end
  return reply
end)

local POD_VIEW = {
  'replica', 'phase', 'desired', 'revision', 'ready', 'node', 'created_ms', 'changed_ms', 'exit_code', 'restarts',
  'retries', 'host_ports', 'asks', 'leaves',
}

-- Shows a wish and a page of its pods, with what their nodes hold.
-- ARGV: service, offset, most pods. Reply: absent · view, now in ms, turn, revision, replicas, split, deleting,
--       host ports, spec, {id, POD_VIEW ..., pods on its node, 1 if that is draining} ...
define('kl_service_view', 3, READS, function(p, args)
  local key = p .. 'service:' .. args[1]
  local wish = redis.call('HMGET', key, 'turn', 'revision', 'replicas', 'split', 'deleting', 'host_ports')
  if not wish[2] then
    return { 'absent' }
  end
  local spec = redis.call('HGET', key, 'spec:' .. wish[2])
  local reply = {
    'view', tostring(now_ms()), wish[1] or '0', wish[2], wish[3] or '0', wish[4] or '0', wish[5] or '',
    wish[6] or '', spec or '',
  }
  local offset, nodes = number(args[2]), {}
  local ids = redis.pcall('ZRANGE', key .. ':pods', offset, offset + step_of(args[3]) - 1)
  for _, id in ipairs(ids) do
    local pod = fields_of(p .. 'pod:' .. id, unpack(POD_VIEW))
    local shown = { id }
    for field = 1, #POD_VIEW do
      shown[field + 1] = pod[field] or ''
    end
    local name = pod[6]
    if name and not nodes[name] then
      local pods = fields_of(p .. 'node:' .. name, 'pods')[1]
      nodes[name] = { string.format('%.0f', amount(pods)), is_draining(p, name) and '1' or '' }
    end
    shown[#POD_VIEW + 2] = name and nodes[name][1] or '0'
    shown[#POD_VIEW + 3] = name and nodes[name][2] or ''
    reply[#reply + 1] = shown
  end
  return reply
end)

-- Carries out a step of a plan, if nothing changed the wish or its pods' number since it was viewed.
-- ARGV: service, turn, due (as claimed, or empty), when to look again in ms from now (0: when
--       something changes), revisions kept, submission, n, n times (replica, reason, avoid, retries)
--       of new pods, then pairs of pods to stop (pod, why)
-- Reply: stepped · moved · absent
define_on_whole('kl_service_step', 7, KEEPS, function(p, args)
  local service, due, again_ms = args[1], args[3], number(args[4])
  local key = p .. 'service:' .. service
  local changed = p .. 'services:changed'
  local known = redis.call('HMGET', key, 'turn', 'revision')
  if not known[2] then
    redis.pcall('ZREM', changed, service)
    return { 'absent' }
  end
  if (known[1] or '0') ~= args[2] then
    write_changed(p, service)
    return { 'moved' }
  end
  local now = now_ms()
  local count = number(args[7])
  local pods = {}
  for at = 8, 7 + count * 4, 4 do
    pods[#pods + 1] = {
      new_id(p, args[6], args[at], now), args[at], shortened(args[at + 1], REASON_MAX), args[at + 2], args[at + 3],
    }
  end
  local stops = 8 + count * 4
  if #pods > 0 or #args >= stops then
    redis.call('HINCRBY', key, 'turn', 1)
  end
  write_pods(p, service, now, pods, 'controller')
  for at = stops, #args - 1, 2 do
    write_stop(p, args[at], 'service:' .. service, now, 'controller', shortened(args[at + 1], REASON_MAX))
  end
  if redis.call('EXISTS', key) == 0 then
    return { 'stepped' } -- that was the last pod of a deleted service
  end
  write_service_end(p, service)
  -- Whoever marked the service meanwhile wants another look; else this claim says when.
  if due == '' or tonumber(redis.pcall('ZSCORE', changed, service) or 0) ~= tonumber(due) then
    return { 'stepped' }
  elseif again_ms > 0 then
    write_changed(p, service, now + again_ms)
  else
    redis.pcall('ZREM', changed, service)
    local revision = number(known[2])
    local oldest = revision - math.max(1, number(args[5])) -- all pods are of the current one
    for old = oldest, math.max(1, oldest - REVISIONS_MAX), -1 do
      if redis.call('HDEL', key, 'spec:' .. old, 'revised_ms:' .. old, 'digest:' .. old) == 0 then
        break
      end
    end
  end
  return { 'stepped' }
end)

-- What a comparison needs to know of a node; read once.
local function node_of(p, name, nodes)
  local node = nodes[name]
  if not node then
    local fields = fields_of(p .. 'node:' .. name, 'draining', 'state', 'heartbeat_ms')
    node = { drains = fields[1], lives = redis.pcall('ZSCORE', p .. 'nodes', name) }
    if not node.lives and fields[3] and fields[2] ~= 'lost' then
      write_over(p, 'ZADD', p .. 'nodes', number(fields[3]), name) -- the sweep judges whether it lives
      node.lives = true
    end
    node.is_lost = not node.lives and redis.pcall('ZSCORE', p .. 'nodes:lost', name)
    nodes[name] = node
  end
  return node
end

-- Writes a pod that has a node into its node's set, and tells its agent, should it not be there; if
-- there is no such node any more, nor is it held there, the pod waits again, or is no more. Answers whether it is on a node.
local function write_place(p, id, owner, phase, desired, name, now, nodes, hold)
  local node = name and node_of(p, name, nodes) or {}
  if node.lives or node.is_lost and is_on_node(phase) and is_held(p, owner, hold, {}) then
    local cs = p .. 'cs:' .. name
    if redis.pcall('SISMEMBER', cs, id) ~= 1 then
      write_over(p, 'SADD', cs, id)
      write_over(p, 'LPUSH', p .. 'pq:' .. name, id)
    end
    return true
  end
  write_off(p, id, owner, phase, desired, name, now, 'its node is gone')
  return false
end

-- Compares a bounded part of all services with their pods: those that are not as they should be
-- are marked for a controller, counts that drifted are set right, and waiting pods that lie in no
-- queue are put back. The last is certain only while nothing is queued or claimed: else the reply
-- says so where it matters. A service goes on from where the part before ended.
-- ARGV: service to begin after (or to go on with; empty: pods without owner), offset in it, most pods,
--       how long ended pods without owner are kept in ms, how many ended pods a service keeps,
--       carried: live, of the current revision, ended
-- Reply: compared, busy (1 or 0), put back, next service (empty: pods without owner), offset in it
--        (-1: that service is done), 1 if all are done, carried live, current, ended
define_on_whole('kl_service_compare', 8, KEEPS, function(p, args)
  local service, offset, budget = args[1], number(args[2]), step_of(args[3])
  local keep_ms, kept = number(args[4]), number(args[5])
  local live, current, ended = number(args[6]), number(args[7]), number(args[8])
  local now = now_ms()
  local queued = redis.call('EXISTS', p .. 'sq:high', p .. 'sq', p .. 'sq:low', p .. 'sq:claims') > 0
  local busy, by_queue, put_back = '0', {}, 0
  local visited, nodes = 0, {}
  while budget > 0 and visited < COMPARED_MAX do
    if offset < 0 then
      local from = service == '' and '-' or '(' .. service
      service = redis.call('ZRANGEBYLEX', p .. 'services', from, '+', 'LIMIT', 0, 1)[1]
      if not service then
        break
      end
      offset, live, current, ended = 0, 0, 0, 0
    end
    visited = visited + 1
    local whole_service = offset == 0
    local key = p .. 'service:' .. service
    local index = service == '' and p .. 'pods' or key .. ':pods'
    local wish = service == '' and {} or fields_of(key, 'revision', 'replicas', 'deleting', 'running', 'labels')
    local ids = redis.pcall('ZRANGE', index, offset, offset + budget - 1)
    if ids.err then
      redis.quarantine(index)
      ids = {}
    end
    local owner, running, wrong = service == '' and '' or 'service:' .. service, 0, false
    for _, id in ipairs(ids) do
      local pod_key = p .. 'pod:' .. id
      local pod = fields_of(pod_key, 'phase', 'desired', 'revision', 'priority', 'changed_ms', 'node', 'rank',
        'leaves', 'hold')
      local rank = RANK[pod[1]]
      local placed = is_on_node(pod[1]) or (rank == 4 and pod[2] == 'stop')
      if placed and not write_place(p, id, owner, pod[1], pod[2], pod[6], now, nodes, pod[9]) then
        pod[1], rank = 'waiting', 0
      end
      if RUNS[pod[1]] then
        running = running + 1
      end
      if not rank or not pod[2] then
        wrong = true -- taken away or damaged by hand
        if service == '' then
          write_stop(p, id, '', now, 'controller', 'its record was damaged')
        end
      elseif rank == 4 then
        ended = ended + 1
        if service == '' and pod[2] == 'run' and now - number(pod[5]) > keep_ms then
          write_stop(p, id, '', now, 'controller', 'it ended long ago')
        end
      elseif pod[2] == 'run' then
        live = live + 1
        local node = rank > 0 and nodes[pod[6]]
        if pod[3] == wish[1] and not (node and node.drains) and not pod[8] then
          current = current + 1
        end
        if pod[1] == 'waiting' and not redis.pcall('ZSCORE', p .. 'sq:parked', id) then
          if queued then
            busy = '1'
          else
            add_to(by_queue, queue_of(p, pod[4]), id)
            write_ranked(p, queue_of(p, pod[4]), pod[7], id)
            local owner = service == '' and '' or 'service:' .. service
            write_event(p, 'waiting', 'recovery', { id, '' }, 'it lay in no queue', owner)
            put_back = put_back + 1
          end
        end
      end
    end
    budget = budget - math.max(1, #ids)
    if #ids > 0 and budget <= 0 then
      offset = offset + #ids -- there may be more of it
      if wrong and service ~= '' then
        write_changed(p, service)
      end
    else
      if service ~= '' then
        if wish[5] and wish[5] ~= '' then
          write_service_labels(p, service, wish[5])
        end
        local replicas = number(wish[2])
        local settled = not wrong and not wish[3] and live == replicas and current == live and ended <= kept
        if not settled then
          write_changed(p, service)
        end
        if whole_service and number(wish[4]) ~= running and redis.call('EXISTS', key) == 1 then
          redis.pcall('HSET', key, 'running', running)
          local reason = string.format('from %.0f to %.0f that run', number(wish[4]), running)
          write_event(p, 'service-recounted', 'controller', { service, '' }, reason)
        end
      end
      offset = -1
    end
  end
  write_queues(p, by_queue, 'LPUSH')
  local done = service and '0' or '1'
  return {
    'compared', busy, tostring(put_back), service or '', tostring(offset), done,
    tostring(live), tostring(current), tostring(ended),
  }
end)

---------------------------------------------------------------------------------------------------
-- The queue: claim, assign, give back

-- Claims up to `max` waiting pods for a lease; entries that are no waiting pod are dropped, those
-- that are no pod at all are shown as raw for the scheduler to read.
-- ARGV: batch (new), lease in ms, max.
-- Reply: claimed, {id, cpu, memory ...}, {raw entry ...}, {id, owner, revision, host_ports, avoid, asks ...}
--        of the pods that want something of their node · empty
define_on_whole('kl_pod_claim', 3, CREATES, function(p, args)
  local batch, lease_ms = args[1], number(args[2])
  local budget = step_of(args[3])
  local waiting, raw, wants, kept = {}, {}, {}, {}
  local spare = BATCH_MAX
  local function take(entry, ranked)
    local pod = #entry <= POD_ID_MAX
        and fields_of(p .. 'pod:' .. entry, 'phase', 'desired', 'cpu', 'memory', 'wants')
      or {}
    local wanted = pod[5]
      and fields_of(p .. 'pod:' .. entry, 'owner', 'revision', 'host_ports', 'avoid', 'asks', 'rank')
    if wanted and wanted[6] and ranked and redis.pcall('ZREM', ranked, entry) ~= 1 then
      if spare > 0 then -- it was taken by its rank: another instead
        budget, spare = budget + 1, spare - 1
      end
      return
    end
    if not pod[1] then
      raw[#raw + 1] = entry
      kept[#kept + 1] = entry
    elseif pod[1] == 'waiting' and pod[2] == 'run' then
      local last = #waiting
      waiting[last + 1] = entry
      waiting[last + 2] = pod[3] and string.format('%.0f', amount(pod[3])) or '0'
      waiting[last + 3] = pod[4] and string.format('%.0f', amount(pod[4])) or '0'
      kept[#kept + 1] = entry
      if wanted then
        last = #wants
        wants[last + 1] = entry
        wants[last + 2] = wanted[1] or ''
        wants[last + 3] = string.format('%.0f', amount(wanted[2]))
        wants[last + 4] = wanted[3] or ''
        wants[last + 5] = wanted[4] or ''
        wants[last + 6] = wanted[5] or ''
      end
    end
  end
  -- What is left to lower priorities of a batch, however much of a higher one waits.
  local function left_to(queue, share)
    local length = budget >= SHARED_BATCH and redis.pcall('LLEN', queue)
    return type(length) == 'number' and length > 0 and math.max(1, math.floor(budget / share)) or 0
  end
  local low = left_to(p .. 'sq:low', LOW_SHARE)
  local normal = left_to(p .. 'sq', NORMAL_SHARE)
  for _, source in ipairs({
    { p .. 'sq:high', p .. 'sq:high:ranked', normal + low }, { p .. 'sq', p .. 'sq:ranked', low },
    { p .. 'sq:low', p .. 'sq:low:ranked', 0 },
  }) do
    local ranked = redis.call('ZPOPMAX', source[2], math.max(0, budget - source[3]))
    for position = 1, #ranked, 2 do
      take(ranked[position])
    end
    budget = budget - #ranked / 2
    while budget > source[3] do
      local entries = write_over(p, 'RPOP', source[1], budget - source[3])
      if not entries then
        break
      end
      budget = budget - #entries
      for _, entry in ipairs(entries) do
        take(entry, source[2])
      end
    end
  end
  if #kept == 0 then
    return { 'empty' }
  end
  redis.call('RPUSH', p .. 'sq:claim:' .. batch, unpack(kept))
  redis.call('EXPIRE', p .. 'sq:claim:' .. batch, CLAIM_KEPT_S)
  write_over(p, 'ZADD', p .. 'sq:claims', now_ms() + lease_ms, batch)
  return { 'claimed', waiting, raw, wants }
end)

-- Writes the entries of a claim that are not in `settled` to the front of their queues, and ends it.
local function write_claim_end(p, batch, settled)
  local claim = p .. 'sq:claim:' .. batch
  local by_queue, back = {}, 0
  local entries = redis.call('LRANGE', claim, 0, -1)
  for position = #entries, 1, -1 do -- the first claimed is pushed last, so it is served first again
    local entry = entries[position]
    if not settled[entry] then
      local pod = #entry <= POD_ID_MAX and fields_of(p .. 'pod:' .. entry, 'priority', 'rank') or {}
      add_to(by_queue, queue_of(p, pod[1]), entry)
      write_ranked(p, queue_of(p, pod[1]), pod[2], entry)
      back = back + 1
    end
  end
  write_queues(p, by_queue, 'RPUSH')
  redis.call('DEL', claim)
  redis.pcall('ZREM', p .. 'sq:claims', batch)
  return back
end

-- What a plan that looked at other pods stands on, as it is now: how often pods of a service were
-- placed, or which node had its turn last.
local function guard_of(p, name)
  if name == 'round-robin' then
    return fields_of(p .. 'cluster', 'round_robin')[1] or ''
  end
  return fields_of(p .. 'service:' .. name, 'placed')[1] or '0'
end

-- Assigns a claimed batch: checks again that each pod waits and each node lives, may be given pods
-- and has room, and what the pod wants: its fixed ports, amounts and devices, and that the node's labels are those that the
-- plan knew (its turn). Bound pods, whose places depend on where others are, are given theirs only if
-- each guard is as the plan knew it: else another scheduler placed some meanwhile.
-- What is neither assigned nor parked goes back to the front of its queue.
-- ARGV: batch, nonce, node lease in ms, n, n pairs (node, turn), g, g triples of guards (`round-robin` or
--       a service, as known, as it is then: of round-robin only), m, how many of the m at the end are bound,
--       m pairs (pod, position of its node), then triples of parked pods (pod, first delay in ms, reason)
-- Reply: assigned, count, given back, {node, pods, cpu, memory ...} as they stand now,
--        {node, turn, ports, labels ...} of those that pods with wishes were meant for, 1 if a guard was
--        not as known, {node, asked, devices_used ...} of those that amounts or devices were asked of · lapsed
define_on_whole('kl_pod_assign', 7, CREATES, function(p, args)
  local batch, nonce, lease_ms = args[1], args[2], number(args[3])
  if not redis.pcall('ZSCORE', p .. 'sq:claims', batch) then
    if redis.call('EXISTS', p .. 'sq:claim:' .. batch) == 1 then -- its lease was taken away by hand
      write_claim_end(p, batch, {})
    end
    return { 'lapsed' }
  end
  local now = now_ms()
  local node_count = number(args[4])
  local nodes = {}
  for position = 1, node_count do
    local name = args[3 + position * 2]
    local fields = fields_of(p .. 'node:' .. name, 'heartbeat_ms', 'state', 'engine',
      'pods', 'pods_max', 'cpu_requested', 'cpu', 'memory_requested', 'memory', 'pressed')
    nodes[position] = {
      name = name,
      planned_turn = args[4 + position * 2],
      alive = fields[1] and now - number(fields[1]) <= lease_ms and fields[2] == 'ready' and fields[3] == 'up'
        and (fields[10] or '') == '',
      pods = number(fields[4]),
      pods_max = number(fields[5]),
      cpu = number(fields[6]),
      cpu_max = number(fields[7]),
      memory = number(fields[8]),
      memory_max = number(fields[9]),
      ids = {},
      given = {},
      attempts = {},
      owners = {},
      prices = {},
    }
  end
  local at = 5 + node_count * 2
  local guard_count, broken, next_turn = number(args[at]), false, nil
  for guard = 1, guard_count do
    local name, known = args[at + guard * 3 - 2], args[at + guard * 3 - 1]
    broken = broken or guard_of(p, name) ~= known
    next_turn = name == 'round-robin' and args[at + guard * 3] or next_turn
  end
  at = at + guard_count * 3 + 2
  -- Check: which pods still wait, and have room on a living node.
  local settled, placed_of = {}, {}
  local pair_count = number(args[at - 1])
  local bound_from = pair_count - number(args[at]) + 1
  for pair = 1, pair_count do
    local id, node = args[at + pair * 2 - 1], nodes[tonumber(args[at + pair * 2])]
    local pod = fields_of(p .. 'pod:' .. id, 'phase', 'desired', 'attempt', 'cpu', 'memory', 'owner', 'wants')
    if pod[1] ~= 'waiting' or pod[2] ~= 'run' then
      settled[id] = true
    elseif node and node.alive and not settled[id] and not (broken and pair >= bound_from) then
      local cpu, memory = amount(pod[4]), amount(pod[5])
      -- Who asks for nothing fits on a node that offers less than it once did.
      local cpu_fits = cpu == 0 or node.cpu + cpu <= node.cpu_max
      local memory_fits = memory == 0 or node.memory + memory <= node.memory_max
      local host_ports, asks, suits = false, false, true
      if pod[7] then
        local wanted = fields_of(p .. 'pod:' .. id, 'host_ports', 'asks')
        host_ports, asks = wanted[1], wanted[2]
        if not node.turn then
          local known = fields_of(p .. 'node:' .. node.name, 'turn', 'labels')
          node.turn, node.labels = known[1] or '0', known[2] or ''
          node.ports = ports_of(p, node.name)
          node.price = string.match(',' .. node.labels, ',price=([^,]+)')
        end
        suits = node.turn == node.planned_turn and not (host_ports and taken_port(node.ports, host_ports))
      end
      suits = suits and node.pods < node.pods_max and cpu_fits and memory_fits
      local given = ''
      if asks and suits then
        node.stock = node.stock or stock_of(p, node.name)
        given = take_stock(node.stock, asks)
      end
      if suits and given then
        node.pods, node.cpu, node.memory = node.pods + 1, node.cpu + cpu, node.memory + memory
        if host_ports then
          node.ports = node.ports .. host_ports .. ','
        end
        node.ids[#node.ids + 1] = id
        node.given[#node.ids] = given
        node.prices[#node.ids] = pod[7] and node.price
        node.attempts[#node.attempts + 1] = amount(pod[3]) + 1
        node.owners[#node.owners + 1] = pod[6] or ''
        settled[id] = true
        if pair >= bound_from then
          placed_of[pod[6] or ''] = true
        end
      end
    end
  end
  -- Write, a node at a time.
  local assigned, event, owners, now_on, suiting, stocks = 0, {}, {}, {}, {}, {}
  for _, node in ipairs(nodes) do
    if #node.ids > 0 then
      write_over(p, 'SADD', p .. 'cs:' .. node.name, unpack(node.ids))
      write_over(p, 'LPUSH', p .. 'pq:' .. node.name, unpack(node.ids))
      for position, id in ipairs(node.ids) do
        redis.call('HSET', p .. 'pod:' .. id, 'phase', 'scheduled', 'node', node.name,
          'attempt', node.attempts[position], 'nonce', nonce, 'changed_ms', now, 'reason', '')
        if node.given[position] ~= '' then
          redis.call('HSET', p .. 'pod:' .. id, 'devices', node.given[position])
        end
        if node.prices[position] then
          redis.call('HSET', p .. 'pod:' .. id, 'price', node.prices[position])
        end
        event[#event + 1] = id
        event[#event + 1] = node.name
        owners[#owners + 1] = node.owners[position]
      end
      redis.call('HSET', p .. 'node:' .. node.name,
        'pods', node.pods, 'cpu_requested', node.cpu, 'memory_requested', node.memory)
      if node.ports then
        redis.call('HSET', p .. 'node:' .. node.name, 'ports', node.ports)
      end
      if node.stock then
        write_stock(p, node.name, node.stock)
      end
      assigned = assigned + #node.ids
    end
    if node.turn then
      local last = #suiting
      suiting[last + 1] = node.name
      suiting[last + 2] = node.turn
      suiting[last + 3] = node.ports
      suiting[last + 4] = node.labels
    end
    if node.stock then
      stocks[#stocks + 1] = node.name
      stocks[#stocks + 1] = amounts_text(node.stock.asked)
      stocks[#stocks + 1] = node.stock.used
    end
    if node.alive then -- one that was full too: the caller's copy is old
      local last = #now_on
      now_on[last + 1] = node.name
      now_on[last + 2] = whole(node.pods)
      now_on[last + 3] = whole(node.cpu)
      now_on[last + 4] = whole(node.memory)
    end
  end
  for owner in pairs(placed_of) do
    local service = string.match(owner, '^service:(.+)$')
    if service and redis.call('EXISTS', p .. owner) == 1 then
      redis.pcall('HINCRBY', p .. owner, 'placed', 1)
    end
  end
  if next_turn and next(placed_of) then
    redis.call('HSET', p .. 'cluster', 'round_robin', next_turn)
  end
  write_event(p, 'scheduled', 'scheduler', event, '', owners)
  for triple = at + pair_count * 2 + 1, #args - 2, 3 do
    local id, delay_ms, reason = args[triple], number(args[triple + 1]), args[triple + 2]
    local pod = fields_of(p .. 'pod:' .. id, 'phase', 'desired', 'reason', 'owner', 'victims')
    if pod[1] == 'waiting' and pod[2] == 'run' then
      reason = shortened(reason, REASON_MAX)
      if reason ~= pod[3] then -- told once, not with each try
        redis.call('HSET', p .. 'pod:' .. id, 'reason', reason)
        write_event(p, 'parked', 'scheduler', { id, '' }, reason, pod[4])
      end
      local tries = redis.pcall('HINCRBY', p .. 'pod:' .. id, 'tries', 1)
      tries = type(tries) == 'number' and tries or 1
      -- Who waits for room that others give up looks often: it should be there first.
      local doublings = pod[5] and 0 or math.min(tries - 1, PARKED_DOUBLINGS)
      local next_try = now + delay_ms * 2 ^ doublings
      write_over(p, 'ZADD', p .. 'sq:parked', next_try, id)
    end
    settled[id] = true
  end
  local back = write_claim_end(p, batch, settled)
  return { 'assigned', tostring(assigned), tostring(back), now_on, suiting, broken and '1' or '0', stocks }
end)

-- Where pods of a service stand when room is short: high is 3000 and more, normal 2000, low 1000, and the rank
-- within; nothing if they are never preempted, or no service's.
local function standing_of(p, owner, known)
  if known[owner] == nil then
    local service = string.match(owner or '', '^service:(.+)$')
    local wish = service and fields_of(p .. owner, 'priority', 'rank', 'kept', 'revision') or {}
    local class = wish[1] == 'high' and 3000 or wish[1] == 'low' and 1000 or 2000
    known[owner] = wish[4] and wish[3] ~= '1' and class + math.min(999, amount(wish[2]))
  end
  return known[owner]
end

-- Names pods of a node that may make room for one that stands higher.
-- ARGV: node, standing of the other, most pods. Reply: pods, {pod, standing, cpu, memory, host_ports, asks} ...
define('kl_node_lower', 3, READS, function(p, args)
  local node, standing = args[1], number(args[2])
  local ids = redis.pcall('SRANDMEMBER', p .. 'cs:' .. node, step_of(args[3]))
  local reply, known = { 'pods' }, {}
  if ids.err then
    return reply
  end
  table.sort(ids)
  for _, id in ipairs(ids) do
    local pod = fields_of(p .. 'pod:' .. id, 'phase', 'desired', 'node', 'owner', 'cpu', 'memory', 'host_ports', 'asks')
    if pod[3] == node and pod[2] == 'run' and is_on_node(pod[1]) then
      local theirs = standing_of(p, pod[4] or '', known)
      if theirs and theirs < standing then
        reply[#reply + 1] = { id, tostring(theirs), whole(amount(pod[5])), whole(amount(pod[6])), pod[7] or '', pod[8] or '' }
      end
    end
  end
  return reply
end)

-- Stops pods of a node, in their grace, so that one that stands higher gets their room. Nothing is stopped
-- unless all of them still stand lower and the other still waits; it asks for more room only once those
-- that it asked before are gone, and others took what they left. ARGV: pod, its standing, node, victims ... Reply: preempted · late
define_on_whole('kl_pod_preempt', 4, KEEPS, function(p, args)
  local id, standing, node = args[1], number(args[2]), args[3]
  local now, known = now_ms(), {}
  local waiting = fields_of(p .. 'pod:' .. id, 'phase', 'desired', 'victims')
  if waiting[1] ~= 'waiting' or waiting[2] ~= 'run' or #args > VICTIMS_MAX + 3 then
    return { 'late' }
  end
  for victim in string.gmatch(waiting[3] or '', '[^,]+') do
    if is_on_node(fields_of(p .. 'pod:' .. victim, 'phase')[1]) then
      return { 'late' }
    end
  end
  local victims = {}
  for position = 4, #args do
    local victim = fields_of(p .. 'pod:' .. args[position], 'phase', 'desired', 'node', 'owner')
    local theirs = victim[4] and standing_of(p, victim[4], known)
    if victim[3] ~= node or victim[2] ~= 'run' or not is_on_node(victim[1]) or not theirs or theirs >= standing then
      return { 'late' }
    end
    victims[#victims + 1] = { args[position], victim[4] }
  end
  redis.call('HSET', p .. 'pod:' .. id, 'victims', table.concat(args, ',', 4))
  redis.call('HDEL', p .. 'pod:' .. id, 'tries') -- so that it is tried again soon
  for _, victim in ipairs(victims) do
    write_stop(p, victim[1], victim[2], now, 'scheduler', 'it makes room for pod ' .. id .. ', which stands higher')
    write_changed(p, string.match(victim[2], '^service:(.+)$'))
  end
  return { 'preempted' }
end)

-- Counts a bounded part of a service's pods by the node they are on; those that are to stop are none.
-- ARGV: service, revision (empty: any), offset, most pods
-- Reply: nodes, how often pods of it were placed, next offset (-1 at the end), {node, count ...}
define('kl_service_nodes', 4, READS, function(p, args)
  local service, revision, offset, max = args[1], args[2], number(args[3]), step_of(args[4])
  local ids = redis.pcall('ZRANGE', p .. 'service:' .. service .. ':pods', offset, offset + max - 1)
  if ids.err then
    ids = {}
  end
  local counts, flat = {}, {}
  for _, id in ipairs(ids) do
    local pod = fields_of(p .. 'pod:' .. id, 'node', 'phase', 'desired', 'revision', 'moving')
    local counts_here = is_on_node(pod[2]) and pod[3] == 'run' and not pod[5]
    if pod[1] and counts_here and (revision == '' or pod[4] == revision) then
      counts[pod[1]] = (counts[pod[1]] or 0) + 1
    end
  end
  for node, count in pairs(counts) do
    flat[#flat + 1] = node
    flat[#flat + 1] = tostring(count)
  end
  local next_offset = #ids == max and offset + max or -1
  return { 'nodes', guard_of(p, service), tostring(next_offset), flat }
end)

-- Takes back claims whose lease is over. ARGV: most claims. Reply: expired, claims, entries
define('kl_claim_expire', 1, KEEPS, function(p, args)
  local batches = redis.call('ZRANGEBYSCORE', p .. 'sq:claims', '-inf', now_ms(), 'LIMIT', 0, step_of(args[1]))
  local entries = 0
  for _, batch in ipairs(batches) do
    entries = entries + write_claim_end(p, batch, {})
  end
  return { 'expired', tostring(#batches), tostring(entries) }
end)

-- Puts parked pods whose time has come back in the queue. ARGV: most pods. Reply: released, pods
define('kl_parked_release', 1, KEEPS, function(p, args)
  local ids = redis.call('ZRANGEBYSCORE', p .. 'sq:parked', '-inf', now_ms(), 'LIMIT', 0, step_of(args[1]))
  write_unparked(p, ids)
  return { 'released', tostring(#ids) }
end)

---------------------------------------------------------------------------------------------------
-- Decisions

-- Keeps why pods are where they are: what a scheduler decided for a batch. Its id is the nonce of the
-- assign call, which the pods that were placed hold already; those that wait are told it here.
-- The oldest are dropped: those beyond the count, and those that end so many bytes before the newest.
-- ARGV: id, decision, most decisions, bytes, ttl in s, then pods that wait by it (at most BATCH_MAX)
-- Reply: kept
define('kl_decision_keep', 5, CREATES, function(p, args)
  local id, decision, count_max, bytes_max = args[1], args[2], number(args[3]), number(args[4])
  local ttl_s, kept = number(args[5]), p .. 'decisions'
  local last = redis.pcall('ZRANGE', kept, -1, -1, 'WITHSCORES')
  local ends = number(not last.err and last[2] or 0) + #decision
  redis.call('SET', p .. 'decision:' .. id, decision, 'EX', ttl_s)
  write_over(p, 'ZADD', kept, ends, id)
  redis.call('EXPIRE', kept, ttl_s)
  local over = redis.call('ZCARD', kept) - count_max
  local too_old = redis.call('ZCOUNT', kept, '-inf', ends - bytes_max)
  over = math.min(BATCH_MAX, math.max(over, too_old))
  if over > 0 then
    for _, old in ipairs(redis.call('ZRANGE', kept, 0, over - 1)) do
      redis.call('DEL', p .. 'decision:' .. old)
    end
    redis.call('ZREMRANGEBYRANK', kept, 0, over - 1)
  end
  for position = 6, math.min(#args, 5 + BATCH_MAX) do
    local key = p .. 'pod:' .. args[position]
    local pod = fields_of(key, 'phase', 'desired')
    if pod[1] == 'waiting' and pod[2] == 'run' then
      redis.call('HSET', key, 'decision', id)
    end
  end
  return { 'kept' }
end)

---------------------------------------------------------------------------------------------------
-- Entries pushed by hand

-- Turns a raw description into a pod: a waiting one from a claim, one of this node from an inbox, or
-- a waiting one too if this node drains.
-- ARGV: claim or inbox, batch or node, entry, id, replica, spec, cpu, memory, priority, nonce,
--       login of its registry, host ports, wishes, asks, 1 if it stays on a lost node (these may be empty
--       or left out)
-- Reply: adopted · known (the id is there already, nothing is made) · stopped (it was, and is a tombstone)
--        full, what is missing (inbox only)
define('kl_pod_adopt', 10, CREATES, function(p, args)
  local from, place, entry, id = args[1], args[2], args[3], args[4]
  local replica, spec, cpu, memory = args[5], args[6], number(args[7]), number(args[8])
  local priority, nonce = args[9], args[10]
  local host_ports, wishes, asks = args[12] or '', args[13] or '', args[14] or ''
  local key = p .. 'pod:' .. id
  local known = fields_of(key, 'phase', 'owner', 'node')
  local list = from == 'claim' and p .. 'sq:claim:' .. place or p .. 'rq:' .. place
  if known[1] and not known[2] then
    return { 'stopped' }
  end
  local now = now_ms()
  local pod = {
    'owner', '', 'revision', 0, 'replica', replica, 'desired', 'run', 'spec', spec,
    'cpu', cpu, 'memory', memory, 'created_ms', now, 'changed_ms', now, 'priority', priority,
  }
  if args[11] and args[11] ~= '' then
    pod[#pod + 1] = 'registry'
    pod[#pod + 1] = args[11]
  end
  if args[15] == '1' then
    pod[#pod + 1] = 'hold'
    pod[#pod + 1] = '1'
  end
  add_wants(pod, host_ports, wishes, '', asks)
  if from == 'claim' or (not known[1] and is_draining(p, place)) then
    if not known[1] then
      write_over(p, 'HSET', key, 'phase', 'waiting', 'attempt', 0, unpack(pod))
      write_over(p, 'ZADD', p .. 'pods', 0, id)
      write_over(p, 'LPUSH', queue_of(p, priority), id)
      write_event(p, 'waiting', 'hand', { id, '' }, 'its description was pushed on the queue')
    end
    redis.call('LREM', list, 1, entry)
    return { known[1] and 'known' or 'adopted' }
  end
  if not known[1] then
    local node_key = p .. 'node:' .. place
    local node = fields_of(node_key,
      'pods', 'pods_max', 'cpu_requested', 'cpu', 'memory_requested', 'memory', 'heartbeat_ms')
    if number(node[1]) >= number(node[2]) then
      return { 'full', 'pods' }
    elseif cpu > 0 and number(node[3]) + cpu > number(node[4]) then
      return { 'full', 'cpu' }
    elseif memory > 0 and number(node[5]) + memory > number(node[6]) then
      return { 'full', 'memory' }
    end
    local taken = host_ports ~= '' and taken_port(ports_of(p, place), host_ports)
    if taken then
      return { 'full', 'port ' .. taken }
    end
    local given, lacking = '', nil
    if asks ~= '' then
      given, lacking = take_stock(stock_of(p, place), asks)
      if not given then
        return { 'full', lacking }
      elseif given ~= '' then
        pod[#pod + 1] = 'devices'
        pod[#pod + 1] = given
      end
    end
    write_over(p, 'HSET', key, 'phase', 'scheduled', 'node', place, 'attempt', 1, 'nonce', nonce, 'pushed_to', place,
      unpack(pod))
    write_over(p, 'ZADD', p .. 'pods', 0, id)
    write_over(p, 'SADD', p .. 'cs:' .. place, id)
    write_taken(p, place, cpu, memory, host_ports, asks, given)
    -- Should the node have been swept already, it must be swept again if its agent is not heard.
    write_over(p, 'ZADD', p .. 'nodes', 'NX', number(node[7]), place)
    write_event(p, 'scheduled', 'hand', { id, place }, 'its description was pushed on the list of ' .. place)
  end
  redis.call('LPUSH', list, id)
  redis.call('LREM', list, -1, entry)
  return { known[1] and 'known' or 'adopted' }
end)

-- Writes entries of a claim or an inbox, each {entry, why, entry as it may be shown}, to the dead letters. Of many a
-- few are events of their own: they must not drive out what else happened.
local function write_buried(p, from, place, entries)
  local list = from == 'claim' and p .. 'sq:claim:' .. place or p .. 'rq:' .. place
  local where = from == 'claim' and 'sq' or 'pq:' .. place
  local by, node = from == 'claim' and 'scheduler' or 'agent', from == 'claim' and '' or place
  local letters = {}
  for _, entry in ipairs(entries) do
    -- One that is not there any more is another's: its claim was taken back.
    if redis.call('LREM', list, 1, entry[1]) == 1 then
      letters[#letters + 1] = { entry[1], where, entry[2], entry[3] }
      if #letters <= DEAD_TOLD_MAX then
        write_event(p, 'dead-letter', by, { where, node }, entry[2])
      end
    end
  end
  if #letters > 0 then
    write_letters(p, letters, now_ms())
  end
  if #letters > DEAD_TOLD_MAX then
    write_event(p, 'dead-letter', by, { where, node }, 'and ' .. #letters - DEAD_TOLD_MAX .. ' more entries')
  end
end

-- Moves an entry that cannot be understood or run to the dead letters.
-- ARGV: claim or inbox, batch or node, entry, why, the entry as it may be shown (may be left out)
-- Reply: dead
define('kl_dead_add', 4, KEEPS, function(p, args)
  write_buried(p, args[1], args[2], { { args[3], args[4], args[5] or args[3] } })
  return { 'dead' }
end)

-- The same for many. ARGV: claim or inbox, batch or node, then for each its entry, why, and as it may be shown;
-- at most BATCH_MAX. Reply: dead
define('kl_dead_bury', 5, KEEPS, function(p, args)
  local entries = {}
  for position = 3, math.min(#args - 2, 3 * BATCH_MAX), 3 do
    entries[#entries + 1] = { args[position], args[position + 1], args[position + 2] }
  end
  write_buried(p, args[1], args[2], entries)
  return { 'dead' }
end)

-- The dead letter of an id as it is stored, if it is there.
local function letter_of(p, id)
  local mark = '"id":"' .. id .. '"'
  for first = 0, DEAD_MAX - 1, 100 do
    for _, letter in ipairs(redis.call('LRANGE', p .. 'dead', first, first + 99)) do
      if string.find(letter, mark, 1, true) then
        return letter
      end
    end
  end
end

-- Where a dead letter's entry was pushed.
local function where_of(letter)
  return string.match(letter, '"where":"([^"]*)"') or ''
end

-- Writes a dead letter away.
local function write_letter_end(p, id, letter)
  redis.call('LREM', p .. 'dead', 1, letter)
  redis.call('HDEL', p .. 'dead:entries', id)
end

-- Pushes the entry of a dead letter once more where it came from, and forgets the letter.
-- ARGV: id. Reply: requeued, where · gone · cut (its entry is not kept whole) · kept (it tells of a key, and has no entry)
--                  nowhere, node (which is no more)
define('kl_dead_requeue', 1, CREATES, function(p, args)
  local letter = letter_of(p, args[1])
  if not letter then
    return { 'gone' }
  end
  local where = where_of(letter)
  if where == 'quarantine' then
    return { 'kept' }
  end
  local entry = redis.call('HGET', p .. 'dead:entries', args[1])
  if not entry then
    return { 'cut' }
  end
  local node = string.match(where, '^pq:(.+)$')
  if node and redis.call('EXISTS', p .. 'node:' .. node) == 0 then
    return { 'nowhere', node }
  end
  redis.call('LPUSH', p .. where, entry)
  write_letter_end(p, args[1], letter)
  write_event(p, 'dead-letter-requeued', 'user', { where, node or '' }, 'dead letter ' .. args[1])
  return { 'requeued', where }
end)

-- Forgets a dead letter, and the key that it tells of, if it does. ARGV: id. Reply: dropped · gone
define('kl_dead_drop', 1, KEEPS, function(p, args)
  local letter = letter_of(p, args[1])
  if not letter then
    return { 'gone' }
  end
  if where_of(letter) == 'quarantine' then
    local away = redis.call('HGET', p .. 'dead:entries', args[1])
    if away and redis.call('ZREM', p .. 'quarantine', away) == 1 then
      redis.call('UNLINK', away)
    end
  end
  write_letter_end(p, args[1], letter)
  return { 'dropped' }
end)

---------------------------------------------------------------------------------------------------
-- Pods, by the agent of their node

-- Moves away what is no list among a node's lists: a person wrote it, and it would hold up the inbox for
-- ever. ARGV: node. Reply: mended
define('kl_inbox_mend', 1, KEEPS, function(p, args)
  for _, list in ipairs({ p .. 'pq:' .. args[1], p .. 'rq:' .. args[1] }) do
    redis.quarantine(list)
  end
  return { 'mended' }
end)

-- Pops a node's inbox in a full Redis, which refuses the plain command: a stop must be heard all the same.
-- ARGV: node, max. Reply: popped, entry ...
define('kl_inbox_pop', 2, KEEPS, function(p, args)
  local reply = { 'popped' }
  for _ = 1, math.min(BATCH_MAX, number(args[2])) do
    local entry = redis.call('LMOVE', p .. 'pq:' .. args[1], p .. 'rq:' .. args[1], 'RIGHT', 'LEFT')
    if not entry then
      break
    end
    reply[#reply + 1] = entry
  end
  return reply
end)

-- Writes and answers a number higher than all before, which a placement is told: whoever a program
-- writes to can refuse what comes with a lower one than it has seen. It is the time in microseconds, so that
-- it grows on where a fail-over lost the last ones.
local function write_fence(p)
  local time = redis.call('TIME')
  local fence = math.max(number(time[1]) * 1000000 + number(time[2]), amount(fields_of(p .. 'cluster', 'fence')[1]) + 1)
  redis.call('HSET', p .. 'cluster', 'fence', whole(fence))
  return whole(fence)
end

-- Takes pods in hand: says what is wanted of each, and moves a scheduled one to starting.
-- This is the fence before a start: what it answers stands in Redis at that moment.
-- ARGV: node, epoch, pods ... (at most BATCH_MAX)
-- Reply: taken, {wish ...}, then for each pod one of {absent} {stale} {unwanted} {hold} {stop, attempt, nonce}
--        {stop, attempt, nonce, moves}, of one that leaves a draining node and waits again once it has,
--        {ended, attempt, nonce, phase} {run, attempt, nonce, phase, replica, owner, revision, spec, container,
--        restarts, registry, devices}, which is a login or empty, and what devices it has, if any;
--        where a wish is {service, uid, wish, replicas, revision, 1 if it is being deleted} of a service of those pods
--        · superseded · unknown (no such node: Redis was emptied)
define('kl_pod_take', 2, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local known = redis.call('HGET', p .. 'node:' .. node, 'epoch')
  if known ~= epoch then
    return refusal_of(p, known, epoch)
  end
  local now = now_ms()
  local recovers = recovery_left(p, now)
  local wishes, reply, event, owners, specs, seen = {}, {}, {}, {}, {}, {}
  reply[1], reply[2] = 'taken', wishes
  -- What a node is told of the wish behind a pod, so that it can tell it should the store be lost.
  local told = {}
  local function add_wish(owner)
    local service = string.match(owner or '', '^service:(.+)$')
    if service and not told[service] then
      told[service] = true
      local wish = fields_of(p .. 'service:' .. service, 'uid', 'wish', 'replicas', 'revision', 'deleting')
      if wish[1] and wish[2] and wish[3] and wish[4] then
        wishes[#wishes + 1] = { service, wish[1], wish[2], wish[3], wish[4], wish[5] or '' }
      end
    end
  end
  for position = 3, math.min(#args, BATCH_MAX + 2) do
    local id = args[position]
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'desired', 'node', 'attempt', 'nonce', 'replica', 'owner', 'revision',
      'container', 'spec', 'registry', 'restarts', 'moving', 'created_ms', 'devices', 'fence')
    local phase, desired, attempt, nonce = pod[1], pod[2], pod[4], pod[5]
    local answer
    if not recovers and pod[3] == node and RANK[phase] and pod[7] then
      write_led_to(p, id, node, { phase = phase, owner = pod[7], replica = pod[6], created_ms = pod[14] }, seen)
    end
    local sound = RANK[phase] and nonce and string.find(attempt or '', '^%d+$')
    local damaged = not sound and pod[7] and pod[3] == node and (RANK[phase] ~= 4 or desired == 'stop')
    if recovers and (not phase or pod[7] and desired ~= 'stop') then
      answer = { 'hold' } -- what stands here may be older than what runs
    elseif damaged and phase ~= 'waiting' then
      write_off(p, id, pod[7], phase, desired, node, now, 'its record was damaged')
      answer = { 'stale' }
    elseif not phase then
      answer = { 'absent' }
    elseif phase == 'stopped' and not pod[3] then
      -- A tombstone: whoever asks has a container that nobody wants.
      answer = { 'unwanted' }
    elseif pod[3] ~= node or phase == 'waiting' then
      answer = { 'stale' }
    elseif not sound then
      answer = { 'absent' } -- written by hand: no placement of ours
    elseif desired == 'stop' then
      answer = { 'stop', attempt, nonce }
      add_wish(pod[7])
    elseif RANK[phase] == 4 then
      answer = { 'ended', attempt, nonce, phase }
      add_wish(pod[7])
    elseif pod[13] then
      answer = { 'stop', attempt, nonce, 'moves' }
    else
      local owner, revision = pod[7] or '', string.format('%.0f', amount(pod[8]))
      local service = string.match(owner, '^service:(.+)$')
      local stored = { pod[10], pod[11] }
      if service then
        local field = service .. '\n' .. revision
        stored = specs[field] or fields_of(p .. 'service:' .. service, 'spec:' .. revision, 'registry')
        specs[field] = stored
      end
      local fence = pod[16]
      if not fence then
        fence = write_fence(p)
        redis.call('HSET', key, 'fence', fence)
      end
      if phase == 'scheduled' then
        phase = 'starting'
        redis.call('HSET', key, 'phase', phase, 'changed_ms', now)
        event[#event + 1] = id
        event[#event + 1] = node
        owners[#owners + 1] = owner
      end
      answer = { 'run', attempt, nonce, phase, string.format('%.0f', amount(pod[6])), owner, revision,
        stored[1] or '', pod[9] or '', string.format('%.0f', amount(pod[12])), stored[2] or '', pod[15] or '', fence }
      add_wish(owner)
    end
    if answer[1] == 'run' or answer[1] == 'stop' then
      write_over(p, 'SADD', p .. 'cs:' .. node, id) -- a person may have taken it out
    end
    reply[#reply + 1] = answer
  end
  write_event(p, 'starting', 'agent', event, '', owners)
  return reply
end)

-- Writes the digest of a revision's image, which nearly all its pods share, where the revision stands.
-- Answers what a pod's own record is to hold: `=` where it is that one.
local function write_digest(p, owner, revision, digest)
  local field = 'digest:' .. (revision or '')
  local known = string.find(owner or '', '^service:') and fields_of(p .. owner, 'revised_ms:' .. (revision or ''), field)
  if not known or not known[1] then
    return digest
  elseif not known[2] then
    redis.call('HSET', p .. owner, field, digest)
  end
  return (known[2] or digest) == digest and '=' or digest
end

-- Writes what an agent told of a pod's container; what is empty is left as it is.
local function write_told(p, key, told, owner, revision)
  if told.digest ~= '' then
    told.digest = write_digest(p, owner, revision, told.digest)
  end
  for field, value in pairs(told) do
    if value ~= '' then
      redis.call('HSET', key, field, value)
    end
  end
end

-- What an agent told that is an event though the phase stays: a word, or nothing.
local function kind_of_news(told, ready, restarts, container)
  if told.ready ~= '' and told.ready ~= ready then
    return told.ready == '1' and 'ready' or 'unready'
  elseif told.restarts ~= '' and number(told.restarts) > number(restarts) then
    return 'restarted'
  elseif told.container ~= '' and container and container ~= '' and told.container ~= container then
    return 'restarted'
  end
end

-- Reports what became of pods and drops their inbox entries.
-- ARGV: node, epoch, then for each: pod, attempt, nonce, phase (may be empty: only the reason, or
--       only the entry), reason, exit code, container, inbox entry to drop, ready (1 or 0),
--       restarts, ports (chosen ones, as host:container/protocol with commas), digest of the image;
--       what is empty from the exit code on is left as it is, and so is the reason without a phase
-- Reply: reported, then a word for each: ok · stale (another token holds) · gone (no such pod)
--        · late (the phase does not move forward) · superseded · unknown (no such node: Redis was emptied)
define('kl_pod_report', 2, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local node_key = p .. 'node:' .. node
  local known = redis.call('HGET', node_key, 'epoch')
  if known ~= epoch then
    return refusal_of(p, known, epoch)
  end
  local now = now_ms()
  local reply, room, by_queue = { 'reported' }, false, {}
  for at = 3, math.min(#args - 11, BATCH_MAX * 12), 12 do
    local id, attempt, nonce, phase = args[at], args[at + 1], args[at + 2], args[at + 3]
    local reason, entry = args[at + 4], args[at + 7]
    local told = {
      exit_code = args[at + 5], container = args[at + 6], ready = args[at + 8],
      restarts = args[at + 9], ports = args[at + 10], digest = args[at + 11],
    }
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'node', 'attempt', 'nonce', 'desired', 'owner', 'cpu', 'memory',
      'reason', 'ready', 'restarts', 'container', 'host_ports', 'moving', 'priority', 'asks', 'devices', 'revision')
    local from, owner, why = pod[1], pod[6], pod[9] or ''
    local word = 'ok'
    if not from then
      word = 'gone'
    elseif pod[2] ~= node or pod[3] ~= attempt or pod[4] ~= nonce then
      word = 'stale'
    elseif phase == 'stopped' and pod[5] == 'stop' then
      -- Whatever it was: its container is gone, and so is the pod.
      if is_on_node(from) then
        write_room(p, node, 1, pod[7], pod[8], pod[13], pod[16], pod[17])
        room = true
      end
      write_running(p, owner, from, phase)
      if why ~= '' and reason ~= '' then
        reason = why .. '; ' .. reason
      end
      write_event(p, 'stopped', 'agent', { id, node }, reason == '' and why or reason, owner)
      write_tombstone(p, id, owner, node)
    elseif phase == 'stopped' and pod[14] and is_on_node(from) then
      write_room(p, node, 1, pod[7], pod[8], pod[13], pod[16], pod[17])
      room = true
      redis.call('SREM', p .. 'cs:' .. node, id)
      local moved = 'moved off node ' .. node .. ', which drains'
      write_waiting(p, id, owner, from, now, moved)
      add_to(by_queue, queue_of(p, pod[15]), id)
      write_event(p, 'waiting', 'agent', { id, node }, moved, owner)
    elseif phase ~= '' and phase ~= from then
      local to = RANK[phase]
      local alternates = to == 3 and RANK[from] == 3
      if not to or not is_on_node(from) or (to <= RANK[from] and not alternates) then
        word = 'late'
      else
        redis.call('HSET', key, 'phase', phase, 'reason', shortened(reason, REASON_MAX), 'changed_ms', now)
        write_told(p, key, told, owner, pod[18])
        if not RUNS[phase] then
          redis.call('HDEL', key, 'ready')
        end
        if to == 4 then
          write_room(p, node, 1, pod[7], pod[8], pod[13], pod[16], pod[17])
          room = true
          local service = string.match(owner or '', '^service:(.+)$')
          if service then
            write_changed(p, service) -- whether it is replaced is the controller's to decide
          end
        end
        write_running(p, owner, from, phase)
        write_pod_moved(p, owner)
        write_event(p, phase, 'agent', { id, node }, reason, owner)
      end
    elseif is_on_node(from) then
      local kind = kind_of_news(told, pod[10] or '1', pod[11], pod[12])
      -- Why it is to stop, or to move, says more.
      if (reason ~= '' or phase ~= '') and pod[5] ~= 'stop' and not pod[14] then
        redis.call('HSET', key, 'reason', shortened(reason, REASON_MAX))
        kind = kind or reason ~= '' and why == '' and from -- what changes from then on is progress: there may be much of it
      end
      write_told(p, key, told, owner, pod[18])
      if told.ready ~= '' then
        write_pod_moved(p, owner)
      end
      if kind then
        write_event(p, kind, 'agent', { id, node }, reason, owner)
      end
    end
    if entry ~= '' then
      redis.pcall('LREM', p .. 'rq:' .. node, -1, entry)
    end
    reply[#reply + 1] = word
  end
  write_queues(p, by_queue, 'RPUSH')
  if room then
    write_room_is_there(p)
  end
  return reply
end)

-- Stops a pod that has no owner. ARGV: pod. Reply: stopping · absent · owned, owner
define_on_whole('kl_pod_stop', 1, KEEPS, function(p, args)
  local pod = fields_of(p .. 'pod:' .. args[1], 'phase', 'owner')
  if not pod[1] or not pod[2] then
    return { 'absent' }
  end
  if pod[2] ~= '' then
    return { 'owned', pod[2] }
  end
  write_stop(p, args[1], '', now_ms(), 'user', 'stopped by a user')
  return { 'stopping' }
end)

---------------------------------------------------------------------------------------------------
-- The store may be lost: what the nodes hold is put back
--
-- Schedulers move a counter, `tick`, and remember how far it was confirmed by replicas; agents learn
-- it by their heartbeats. A Redis whose tick is lower has lost writes: it was emptied, restored from
-- an older copy, or failed over to a replica that lagged. Whoever sees that first begins a recovery:
-- for a while nothing is placed, planned or swept, and agents are told to hold, while each tells what
-- it runs (kl_service_restore, kl_pod_restore). Then all goes on from there.

-- Checks whether Redis lost writes since the caller last looked.
-- ARGV: cluster id, tick that the caller knows to be confirmed, length of a recovery in ms,
--       1 to move the tick
-- Reply: checked, tick, tick known to be confirmed, ms of recovery left
--        · foreign, id (another cluster)
define('kl_cluster_check', 4, KEEPS, function(p, args)
  local id, seen, recovery_ms = args[1], number(args[2]), number(args[3])
  local key = p .. 'cluster'
  local now = now_ms()
  local known = redis.call('HMGET', key, 'id', 'tick', 'confirmed', 'lost_ms', 'recover_until_ms')
  local tick, confirmed = number(known[2]), math.max(number(known[3]), seen)
  local left_ms = number(known[5]) - now
  if known[1] and known[1] ~= id then
    -- Made anew by a process that started on the emptied Redis, before any that knew the cluster
    -- came by: nothing was entrusted to it yet.
    local blank = not known[4] and seen > 0
      and redis.call('EXISTS', p .. 'services', p .. 'pods', p .. 'sq', p .. 'sq:high', p .. 'sq:low') == 0
    if not blank then
      return { 'foreign', known[1] }
    end
  end
  if known[1] ~= id or tick < seen then
    tick, left_ms = seen, recovery_ms
    redis.call('HSETNX', key, 'created_ms', now)
    redis.call('HSET', key, 'id', id, 'schema', SCHEMA, 'tick', tick, 'confirmed', confirmed, 'lost_ms', now,
      'recovery_ms', recovery_ms, 'recover_until_ms', now + recovery_ms, 'grace_until_ms', now + recovery_ms)
    local reason = string.format('the nodes know of its tick %.0f: what they hold is put back', seen)
    write_event(p, 'store-lost', 'recovery', { key, '' }, reason)
  end
  if args[4] == '1' then
    tick = tick + 1
    redis.call('HSET', key, 'tick', tick, 'confirmed', confirmed)
  end
  return { 'checked', whole(tick), whole(confirmed), whole(left_ms) }
end)

-- Puts a service back as a node knows it: the newest wish counts, and a deleted one stays deleted.
-- ARGV: service, uid, wish, replicas, 1 if it was deleted, revision, its spec, cpu, memory, priority,
--       host ports, wishes, registry, a pod of it (may be empty), labels, rank, 1 if its pods are never
--       preempted, 1 if the spec is whole (a container's labels lack what is secret), asks, 1 if its pods stay
--       on a lost node (may be left out)
-- Reply: restored · known (nothing newer) · gone (it was deleted)
define('kl_service_restore', 19, KEEPS, function(p, args)
  local service, uid, wish, replicas = args[1], args[2], number(args[3]), args[4]
  local revision, spec, is_whole = number(args[6]), args[7], args[18] == '1'
  local key = p .. 'service:' .. service
  local gone_key = key .. ':gone'
  local now = now_ms()
  local known = redis.call('HMGET', key, 'uid', 'wish', 'revision', 'deleting')
  local newer = number(known[2]) < wish
  if args[5] == '1' then
    if known[1] and not known[4] and newer then
      redis.call('HSET', key, 'replicas', 0, 'deleting', 1, 'wish', string.format('%.0f', wish))
      redis.call('HINCRBY', key, 'turn', 1)
      write_event(p, 'service-deleting', 'recovery', { service, '' }, 'it was deleted before the store was lost')
      write_changed(p, service)
    elseif not known[1] then
      write_gone(key, uid, string.format('%.0f', wish))
    end
    return { 'gone' }
  end
  local tombstone = fields_of(p .. 'pod:' .. args[14], 'phase', 'owner')
  if not known[1] and (number(redis.call('HGET', gone_key, 'wish')) >= wish or tombstone[1] and not tombstone[2]) then
    return { 'gone' }
  end
  if known[1] and known[1] ~= uid then
    if not newer then
      return { 'gone' } -- told is an older service of that name, which was deleted
    end
    -- What stands here is the older one.
    for _, id in ipairs(redis.pcall('ZRANGE', key .. ':pods', 0, BATCH_MAX - 1)) do -- none of an error
      write_stop(p, id, 'service:' .. service, now, 'recovery', 'its service was deleted before the store was lost')
    end
    write_service_labels(p, service, '')
    redis.call('DEL', key, key .. ':pods')
    known = {}
  end
  local function write_current()
    redis.call('HSET', key, 'revision', revision, 'cpu', args[8], 'memory', args[9], 'priority', args[10],
      'host_ports', args[11], 'wishes', args[12], 'rank', args[16], 'kept', args[17], 'asks', args[19],
      'hold', args[20] or '')
    write_service_labels(p, service, args[15])
  end
  -- What runs by a wish no older than the one that stands here is its spec: a number may have been given
  -- twice, where the store was lost after a change of which no node had heard.
  local field = 'spec:' .. args[6]
  local stands = known[1] and redis.call('HGET', key, field)
  local is_news = not stands or stands ~= spec and is_whole and number(known[2]) <= wish
  if is_news then
    redis.call('HSET', key, field, spec)
    redis.call('HSETNX', key, 'revised_ms:' .. args[6], now)
  end
  if is_whole and number(known[2]) <= wish then
    write_registry(key, args[13])
  end
  if not known[1] then
    redis.call('HSET', key, 'uid', uid, 'wish', string.format('%.0f', wish), 'replicas', replicas, 'split', replicas,
      'turn', 0, 'created_ms', now, 'submission', uid)
    write_current()
    redis.call('ZADD', p .. 'services', 0, service)
  elseif newer or is_news and revision >= number(known[3]) then
    if newer then
      redis.call('HSET', key, 'wish', string.format('%.0f', wish), 'replicas', replicas)
      redis.call('HDEL', key, 'deleting')
    end
    if revision >= number(known[3]) then
      write_current()
    end
    redis.call('HINCRBY', key, 'turn', 1)
  else
    return { 'known' }
  end
  write_event(p, 'service-restored', 'recovery', { service, '' }, 'as a node knows it: revision ' .. args[6])
  write_changed(p, service)
  return { 'restored' }
end)

-- Puts pods back as their node holds them. A placement that began later elsewhere stands.
-- ARGV: node, epoch, then for each: pod, attempt, nonce, phase (of a live or ended container; or
--       stopped: it is known to be gone), replica, owner, revision, spec (of one without owner), cpu,
--       memory, priority, host ports, wishes, container, exit code, uid of its service, asks, devices that it
--       has (these three may be empty)
-- Reply: restored, then a word for each: ok · stale (another placement holds) · stopped (a tombstone, or
--        of an older service of that name) · absent (its service is not there) · superseded · unknown
define('kl_pod_restore', 2, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local known_epoch = redis.call('HGET', p .. 'node:' .. node, 'epoch')
  if known_epoch ~= epoch then
    return refusal_of(p, known_epoch, epoch)
  end
  local now = now_ms()
  local reply = { 'restored' }
  local told = 'its node told of it after the store was lost'
  for at = 3, math.min(#args - 17, BATCH_MAX * 18), 18 do
    local id, attempt, nonce, phase, replica = unpack(args, at, at + 4)
    local owner, revision, spec, cpu, memory = unpack(args, at + 5, at + 9)
    local priority, host_ports, wishes, container, exit_code, uid = unpack(args, at + 10, at + 15)
    local asks, devices = args[at + 16], args[at + 17]
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'owner', 'node', 'attempt', 'nonce', 'cpu', 'memory', 'host_ports', 'asks',
      'devices')
    local service = string.match(owner, '^service:(.+)$')
    local stands = service and redis.call('HGET', p .. 'service:' .. service, 'uid')
    local is_older = uid ~= '' and stands and stands ~= uid
    local word
    if pod[1] and not pod[2] then
      word = 'stopped'
    elseif phase == 'stopped' or is_older then
      if pod[1] then
        write_stop(p, id, pod[2], now, 'recovery', 'it was stopped before the store was lost')
      else
        write_tombstone(p, id, nil, nil)
      end
      word = phase == 'stopped' and 'ok' or 'stopped'
    elseif pod[3] == node and pod[4] == attempt and pod[5] == nonce then
      write_over(p, 'SADD', p .. 'cs:' .. node, id)
      word = 'ok'
    elseif pod[1] and is_on_node(pod[1]) and (number(pod[4]) > number(attempt)
        or number(pod[4]) == number(attempt) and RUNS[pod[1]]) then
      word = 'stale'
    elseif service and not stands then
      if redis.call('EXISTS', p .. 'service:' .. service .. ':gone') == 1 then
        write_tombstone(p, id, nil, nil)
        word = 'stopped'
      else
        word = 'absent'
      end
    else
      local other = pod[3]
      if other and may_reach(p, other) then
        redis.pcall('SREM', p .. 'cs:' .. other, id)
        if is_on_node(pod[1]) then
          write_room(p, other, 1, pod[6], pod[7], pod[8], pod[9], pod[10])
        end
        write_over(p, 'LPUSH', p .. 'pq:' .. other, id) -- whatever it made of it is to go
      end
      write_over(p, 'HSET', key, 'owner', owner, 'revision', revision, 'replica', replica, 'desired', 'run',
        'phase', phase, 'node', node, 'attempt', attempt, 'nonce', nonce, 'container', container,
        'reason', told, 'changed_ms', now)
      redis.call('HSETNX', key, 'created_ms', now)
      local fields = {}
      for name, value in pairs({
        cpu = cpu ~= '0' and cpu or '', memory = memory ~= '0' and memory or '', spec = spec, exit_code = exit_code,
        priority = priority ~= 'normal' and priority or '', devices = devices,
      }) do
        if value ~= '' then
          fields[#fields + 1] = name
          fields[#fields + 1] = value
        end
      end
      add_wants(fields, host_ports, wishes, '', asks)
      if #fields > 0 then
        redis.call('HSET', key, unpack(fields))
      end
      redis.call('HDEL', key, 'moving', devices == '' and 'devices' or 'moving')
      redis.call('ZREM', p .. 'sq:parked', id)
      redis.call('ZADD', service and p .. 'service:' .. service .. ':pods' or p .. 'pods', service and replica or 0, id)
      write_over(p, 'SADD', p .. 'cs:' .. node, id)
      if is_on_node(phase) then
        write_taken(p, node, amount(cpu), amount(memory), host_ports, asks, devices)
      end
      write_running(p, owner, pod[1], phase)
      if service then
        -- It was made once: a split that began below it would make a second one of its replica.
        local at_key = p .. 'service:' .. service
        local split = number(redis.call('HGET', at_key, 'split'))
        redis.call('HSET', at_key, 'split', string.format('%.0f', math.max(split, number(replica) + 1)))
        write_changed(p, service)
      end
      write_event(p, phase, 'recovery', { id, node }, told, owner)
      word = 'ok'
    end
    reply[#reply + 1] = word
  end
  return reply
end)

---------------------------------------------------------------------------------------------------
-- Nodes

-- The state of a living node, by its fields `cordoned` and `draining`.
local function state_of(cordoned, draining)
  return draining and 'draining' or cordoned and 'cordoned' or 'ready'
end

-- Writes the labels that count: those of the agent's settings, and over them those that users set.
-- Answers whether that changed them.
local function write_labels(p, node)
  local key = p .. 'node:' .. node
  local known = redis.call('HMGET', key, 'labels_agent', 'labels_user', 'labels')
  local labels, keys = {}, {}
  for source = 1, 2 do
    for name, value in string.gmatch(known[source] or '', '([^=,]+)=([^=,]*)') do
      if not labels[name] then
        keys[#keys + 1] = name
      end
      labels[name] = value
    end
  end
  table.sort(keys)
  for position, name in ipairs(keys) do
    keys[position] = name .. '=' .. labels[name]
  end
  local text = table.concat(keys, ',')
  if text ~= (known[3] or '') then
    redis.call('HSET', key, 'labels', text)
    redis.call('HINCRBY', key, 'turn', 1)
    return true
  end
end

-- What agents are told of the cluster.
local function shown_cluster(p, now)
  local cluster = redis.call('HMGET', p .. 'cluster', 'id', 'confirmed', 'lost_ms', 'recover_until_ms')
  return { cluster[1] or '', cluster[2] or '0', cluster[3] or '0', whole(number(cluster[4]) - now) }
end

-- Registers a node's agent; the newest agent of one engine is the one that counts. What users said
-- of the node stays: its labels, and whether it is cordoned.
-- ARGV: node, engine id, lease in ms, then fields and values
-- Reply: registered, epoch, CLUSTER · taken, ms left (another engine holds the name's lease)
--        where CLUSTER is its id, tick known to be confirmed, when a loss was last seen, ms of recovery left
define('kl_node_register', 3, KEEPS, function(p, args)
  local node, engine_id, lease_ms = args[1], args[2], number(args[3])
  local key = p .. 'node:' .. node
  local now = now_ms()
  local known = redis.call('HMGET', key, 'engine_id', 'heartbeat_ms', 'cordoned', 'draining', 'offers', 'devices')
  local left_ms = number(known[2]) + lease_ms - now
  if known[1] and known[1] ~= engine_id and left_ms > 0 then
    return { 'taken', tostring(left_ms) }
  end
  if redis.call('EXISTS', key) == 0 then
    -- A small hash is read from its front: there stands what each assign reads.
    redis.call('HSET', key, 'heartbeat_ms', now, 'state', 'ready', 'engine', 'down', 'pods_max', 0,
      'cpu_requested', 0, 'cpu', 0, 'memory_requested', 0, 'memory', 0, 'pressed', '')
  end
  local epoch = redis.call('HINCRBY', key, 'epoch', 1)
  redis.call('HSET', key, 'engine_id', engine_id, 'heartbeat_ms', now, 'state', state_of(known[3], known[4]),
    unpack(args, 4))
  redis.call('HDEL', key, 'left')
  if not redis.call('HGET', key, 'pods') then -- new, or its record was lost while its pods stayed
    local pods, cpu, memory, ports, asked, used = sums_of(p, node)
    redis.call('HSET', key, 'pods', pods, 'cpu_requested', cpu, 'memory_requested', memory, 'ports', ports,
      'asked', asked, 'devices_used', used)
  end
  local stock = redis.call('HMGET', key, 'offers', 'devices')
  write_over(p, 'ZADD', p .. 'nodes', now, node)
  redis.pcall('ZREM', p .. 'nodes:lost', node)
  write_event(p, 'node-registered', 'agent', { node, '' }, string.format('for the %.0f. time', epoch))
  if write_labels(p, node) or stock[1] ~= known[5] or stock[2] ~= known[6] then
    write_nodes_changed(p)
  else
    write_room_is_there(p)
  end
  return { 'registered', tostring(epoch), unpack(shown_cluster(p, now)) }
end)

-- The value of a field among arguments that are fields and values from position `first` on.
local function value_among(args, first, field)
  for position = first, #args - 1, 2 do
    if args[position] == field then
      return args[position + 1]
    end
  end
end

-- Writes what follows from a node's being above its pressure limit, or no longer.
local function write_pressed(p, node, known, pressed)
  local was, is = (known or '') ~= '', (pressed or '') ~= ''
  if is and not was then
    write_event(p, 'node-pressed', 'agent', { node, '' }, pressed .. ': it takes no new pods')
  elseif was and not is then
    write_event(p, 'node-calm', 'agent', { node, '' }, 'it takes pods again')
    write_nodes_changed(p)
  end
end

-- Writes that a node is not under lasting pressure.
local function write_unstrained(p, node)
  redis.pcall('HDEL', p .. 'node:' .. node, 'strained_ms', 'strained_beats', 'strained_beat_ms', 'suggestion')
end

-- Writes that a node tells which of its pods use most, as it does under pressure, or no longer.
local function write_users(p, node, known, users, now)
  if (users or '') ~= '' then
    write_over(p, 'ZADD', p .. 'nodes:strained', now, node)
  elseif (known or '') ~= '' then
    redis.pcall('ZREM', p .. 'nodes:strained', node)
    write_unstrained(p, node)
  end
end

-- Puts the end of a recovery off for a living node that could not tell yet what it holds, within a bound: one
-- that never can must not hold up all. Answers what is left of it.
local function write_recovery_awaits(p, now, cluster)
  local recovery_ms = number(redis.call('HGET', p .. 'cluster', 'recovery_ms'))
  local last = number(cluster[3]) + RECOVERIES_MAX * recovery_ms
  local left_ms = math.max(number(cluster[4]), math.min(recovery_ms / 2, last - now))
  redis.call('HSET', p .. 'cluster', 'recover_until_ms', whole(now + left_ms), 'grace_until_ms', whole(now + left_ms))
  return whole(left_ms)
end

-- Renews a node's lease. ARGV: node, epoch, then fields and values: `told` of them is after which loss of Redis
-- the node told what it holds
-- Reply: beat, CLUSTER, what users said of the node · returned, likewise (it had been lost: compare
--        everything) · unknown (register again) · superseded (another agent registered)
define('kl_node_heartbeat', 2, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local key = p .. 'node:' .. node
  local known = redis.call('HMGET', key, 'epoch', 'state', 'engine', 'cordoned', 'draining', 'left', 'labels_user',
    'pressed', 'users')
  if known[1] ~= epoch then
    return refusal_of(p, known[1], epoch)
  end
  local now = now_ms()
  redis.call('HSET', key, 'heartbeat_ms', now, 'state', state_of(known[4], known[5]), unpack(args, 3))
  if known[6] then
    redis.call('HDEL', key, 'left')
  end
  write_over(p, 'ZADD', p .. 'nodes', now, node)
  write_pressed(p, node, known[8], value_among(args, 3, 'pressed'))
  write_users(p, node, known[9], value_among(args, 3, 'users'), now)
  local engine = value_among(args, 3, 'engine') or known[3]
  local came_up = known[3] ~= 'up' and engine == 'up'
  if known[3] == 'up' and engine ~= 'up' then
    write_event(p, 'node-engine-down', 'agent', { node, '' }, 'its engine does not answer: it gets no pods')
  elseif came_up then
    write_event(p, 'node-engine-up', 'agent', { node, '' }, 'its engine answers again')
  end
  if known[2] == 'lost' or came_up then
    redis.pcall('ZREM', p .. 'nodes:lost', node)
    write_room_is_there(p)
  end
  if known[2] == 'lost' then
    write_event(p, 'node-returned', 'agent', { node, '' }, 'its agent is heard again')
  end
  local cluster = shown_cluster(p, now)
  local told = value_among(args, 3, 'told')
  if told and told ~= cluster[3] and number(cluster[4]) > 0 then
    cluster[4] = write_recovery_awaits(p, now, cluster)
  end
  local reply = { known[2] == 'lost' and 'returned' or 'beat', unpack(cluster) }
  reply[#reply + 1] = state_of(known[4], known[5]) .. ' ' .. (known[7] or '')
  return reply
end)

-- Gives up a node's lease at an orderly end of its agent, whose containers run on: the node keeps
-- its pods for the rest of the lease, but gets no new ones. ARGV: node, epoch. Reply: left · superseded
define('kl_node_leave', 2, KEEPS, function(p, args)
  local key = p .. 'node:' .. args[1]
  local known = redis.call('HGET', key, 'epoch')
  if known ~= args[2] then
    return refusal_of(p, known, args[2])
  end
  redis.call('HSET', key, 'engine', 'down', 'left', 1)
  write_event(p, 'node-left', 'agent', { args[1], '' }, 'its agent ended in order; its containers run on')
  return { 'left' }
end)

local NODE_FIELDS = {
  'heartbeat_ms', 'state', 'engine', 'pods_max', 'cpu', 'memory', 'pods', 'cpu_requested', 'memory_requested',
  'cpu_used', 'memory_used', 'pressure', 'epoch', 'version', 'labels', 'ports', 'turn', 'platform', 'offers',
  'asked', 'devices', 'devices_used', 'pressed',
}

-- Nodes heard at or after a time, for the schedulers' snapshot and the API. The next page begins with
-- the time that this one ends with, not behind as many nodes: those that beat meanwhile move to the
-- end, and the others up, past such a page's beginning. So a node may be on two pages, never on none.
-- ARGV: since in ms, offset, max.
-- Reply: nodes, now in ms, next page's since, its offset, {name, NODE_FIELDS ...} ...
define('kl_node_snapshot', 3, READS, function(p, args)
  local since, offset = args[1], number(args[2])
  local found = redis.call('ZRANGEBYSCORE', p .. 'nodes', since, '+inf', 'WITHSCORES',
    'LIMIT', offset, step_of(args[3]))
  local first, last = found[2], found[#found]
  if first ~= last then
    offset = 0
  elseif last then -- all of one millisecond: only counting leads on
    offset = (number(last) == number(since) and offset or 0) + #found / 2
  end
  local reply = { 'nodes', tostring(now_ms()), last or since, tostring(offset) }
  for position = 1, #found, 2 do
    local name = found[position]
    local fields = fields_of(p .. 'node:' .. name, unpack(NODE_FIELDS))
    local flat = { name }
    for field = 1, #NODE_FIELDS do
      flat[field + 1] = fields[field] or ''
    end
    reply[#reply + 1] = flat
  end
  return reply
end)

-- Writes a node away.
local function write_node_end(p, node, kind, by, reason)
  redis.call('DEL', p .. 'node:' .. node, p .. 'cs:' .. node, p .. 'cs:' .. node .. ':held', p .. 'pq:' .. node, p .. 'rq:' .. node)
  redis.pcall('ZREM', p .. 'nodes', node)
  redis.pcall('ZREM', p .. 'nodes:lost', node)
  redis.pcall('SREM', p .. 'nodes:draining', node)
  write_event(p, kind, by, { node, '' }, reason)
end

-- Writes nodes away that have been lost for longer than any tombstone lives.
local function write_forgotten(p, now)
  local before = now - TOMBSTONE_S * 1000
  local names = redis.call('ZRANGEBYSCORE', p .. 'nodes:lost', '-inf', before, 'LIMIT', 0, NODES_FORGOTTEN)
  for _, name in ipairs(names) do
    if redis.call('EXISTS', p .. 'cs:' .. name) == 1 then -- of pods that wait for it
      redis.call('ZADD', p .. 'nodes:lost', now, name)
    else
      write_node_end(p, name, 'node-forgotten', 'sweep', 'lost for longer than any tombstone lives')
    end
  end
end

-- Writes up to `pods_max` pods off a node, back to the front of their queues; where `may_hold`, but those
-- that are to stay: they are put aside until all were looked at.
-- Answers how many wait again, and whether none is left to look at.
local function write_swept(p, node, pods_max, now, reason, may_hold)
  local cs, aside = p .. 'cs:' .. node, p .. 'cs:' .. node .. ':held'
  local ids = redis.pcall('SPOP', cs, pods_max)
  if ids.err then
    redis.call('DEL', cs)
    ids = {}
  end
  local by_queue, event, owners, held, holding = {}, {}, {}, {}, {}
  local pods, cpu, memory, ports, asked, used = 0, 0, 0, '', {}, ''
  for _, id in ipairs(ids) do
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'desired', 'node', 'owner', 'priority', 'cpu', 'memory', 'host_ports',
      'asks', 'devices', 'hold')
    -- One that is to stop stays too: its container runs until its node is heard, and so would its successor's.
    local stays = may_hold and pod[3] == node and is_on_node(pod[1]) and is_held(p, pod[4], pod[11], holding)
    if stays then
      write_over(p, 'SADD', aside, id)
      redis.call('HSET', key, 'reason', reason .. ': held until it is heard again, or removed')
      if RUNS[pod[1]] then
        redis.call('HSET', key, 'ready', 0)
      end
      held[#held + 1] = id
      held[#held + 1] = node
    elseif pod[3] == node then
      if is_on_node(pod[1]) then
        pods, cpu, memory = pods + 1, cpu + amount(pod[6]), memory + amount(pod[7])
        ports = pod[8] and ports .. pod[8] .. ',' or ports
        add_amounts(asked, pod[9])
        used = pod[10] and used .. pod[10] .. ',' or used
      end
      if pod[2] == 'stop' then
        write_running(p, pod[4], pod[1], 'stopped')
        write_event(p, 'stopped', 'sweep', { id, node }, reason .. ', and it was to stop', pod[4])
        write_tombstone(p, id, pod[4], node)
      elseif is_on_node(pod[1]) then
        write_waiting(p, id, pod[4], pod[1], now, reason)
        add_to(by_queue, queue_of(p, pod[5]), id)
        event[#event + 1] = id
        event[#event + 1] = node
        owners[#owners + 1] = pod[4] or ''
      end
    end
  end
  write_queues(p, by_queue, 'RPUSH')
  write_event(p, 'waiting', 'sweep', event, reason, owners)
  write_event(p, 'held', 'sweep', held, reason)
  if pods > 0 then
    local asks = amounts_text(asked)
    -- In each step: the node may return before the last.
    write_room(p, node, pods, cpu, memory, ports ~= '' and ports, (asks ~= '' or used ~= '') and asks, used)
  end
  local done = redis.call('EXISTS', cs) == 0
  if done then
    write_held_back(p, node)
  end
  return #event / 2, done
end

-- The clock of Redis jumped, or nobody swept for long: whichever, ages say nothing now. What lies in
-- a future that the clock has left is due at once, a bounded step of it; answers whether all is done.
local function write_clock(p, now, lease_ms)
  local left = 0
  for _, name in ipairs({ 'nodes', 'sq:claims', 'sq:parked', 'services:changed' }) do
    local ahead = redis.pcall('ZRANGEBYSCORE', p .. name, string.format('(%.0f', now + CLOCK_AHEAD_MS), '+inf',
      'LIMIT', 0, BATCH_MAX)
    for _, member in ipairs(ahead) do -- none of an error
      redis.call('ZADD', p .. name, now, member)
    end
    left = left + (#ahead == BATCH_MAX and 1 or 0)
  end
  redis.call('HDEL', p .. 'cluster', 'mass_until_ms')
  redis.call('HSET', p .. 'cluster', 'grace_until_ms', now + lease_ms)
  if number(redis.call('HGET', p .. 'cluster', 'recover_until_ms')) > now + lease_ms then
    redis.call('HSET', p .. 'cluster', 'recover_until_ms', now + lease_ms)
  end
  return left == 0
end

-- Sweeps nodes whose lease is over: their pods go back to the front of the queue, up to `max` in
-- one call. Whichever scheduler calls first moves them; a second finds nothing left.
-- After a fail-over or restart of Redis (its run id changed), and when its clock jumped, every lease gets
-- one full term of grace. When more than half of at least four nodes are overdue, one more term is waited.
-- ARGV: lease in ms, max pods, that grace in ms (the lease where it is left out)
-- Reply: none · grace, ms left · mass, overdue, all, ms left · swept, node, pods moved, 1 if it is done
define('kl_node_sweep', 2, KEEPS, function(p, args)
  local lease_ms, pods_max, grace_ms = number(args[1]), step_of(args[2]), number(args[3] or args[1])
  local now = now_ms()
  local recovers_ms = recovery_left(p, now)
  if recovers_ms then
    return { 'grace', tostring(recovers_ms) }
  end
  local run_id = string.match(redis.call('INFO', 'server'), 'run_id:(%w+)')
  local guard = redis.call('HMGET', p .. 'cluster', 'run_id', 'grace_until_ms', 'mass_until_ms', 'swept_ms')
  if guard[1] ~= run_id then
    redis.call('HSET', p .. 'cluster', 'run_id', run_id, 'grace_until_ms', now + grace_ms, 'swept_ms', now)
    return { 'grace', whole(grace_ms) }
  end
  local since = now - number(guard[4] or now)
  if since < -CLOCK_AHEAD_MS or since > math.max(lease_ms / 8, CLOCK_AHEAD_MS) then
    if write_clock(p, now, grace_ms) then
      redis.call('HSET', p .. 'cluster', 'swept_ms', now)
    end
    return { 'grace', whole(grace_ms) }
  end
  redis.call('HSET', p .. 'cluster', 'swept_ms', now)
  if now < number(guard[2]) then
    return { 'grace', tostring(number(guard[2]) - now) }
  end
  local overdue_max = '(' .. string.format('%.0f', now - lease_ms)
  local overdue = redis.call('ZCOUNT', p .. 'nodes', '-inf', overdue_max)
  local all = redis.call('ZCARD', p .. 'nodes')
  if overdue == 0 then
    if guard[3] then
      redis.call('HDEL', p .. 'cluster', 'mass_until_ms')
    end
    write_forgotten(p, now)
    return { 'none' }
  end
  if guard[3] and now < number(guard[3]) then -- though some were heard by now
    return { 'mass', tostring(overdue), tostring(all), tostring(number(guard[3]) - now) }
  elseif not guard[3] and all >= 4 and overdue * 2 > all then
    redis.call('HSET', p .. 'cluster', 'mass_until_ms', now + lease_ms)
    return { 'mass', tostring(overdue), tostring(all), tostring(lease_ms) }
  end
  local node = redis.call('ZRANGEBYSCORE', p .. 'nodes', '-inf', overdue_max, 'LIMIT', 0, 1)[1]
  local node_key = p .. 'node:' .. node
  local known = fields_of(node_key, 'state', 'heartbeat_ms')
  if known[1] ~= 'lost' then
    write_over(p, 'HSET', node_key, 'state', 'lost')
    local reason = known[2] and string.format('no heartbeat for %.1f s', (now - number(known[2])) / 1000)
      or 'its record is lost'
    write_event(p, 'node-lost', 'sweep', { node, '' }, reason)
  end
  local moved, done = write_swept(p, node, pods_max, now, 'node ' .. node .. ' was lost', true)
  if done then
    redis.pcall('ZREM', p .. 'nodes', node)
    write_over(p, 'ZADD', p .. 'nodes:lost', now, node)
  end
  return { 'swept', node, tostring(moved), done and '1' or '0' }
end)

---------------------------------------------------------------------------------------------------
-- Nodes, by users: labels, cordon, drain, removal

-- Writes whether a node is given pods (the state `ready`), keeps those it has (`cordoned`), or neither.
-- Answers whether that changed it.
local function write_mark(p, node, state)
  local key = p .. 'node:' .. node
  local known = redis.call('HMGET', key, 'state', 'cordoned', 'draining')
  redis.call('HDEL', key, 'cordoned', 'draining')
  if state ~= 'ready' then
    redis.call('HSET', key, 'cordoned', 1)
  end
  if state == 'draining' then
    redis.call('HSET', key, 'draining', 1)
    write_over(p, 'SADD', p .. 'nodes:draining', node)
  else
    redis.pcall('SREM', p .. 'nodes:draining', node)
  end
  if known[1] ~= 'lost' then
    redis.call('HSET', key, 'state', state)
  end
  return state ~= state_of(known[2], known[3])
end

-- Puts back what users said of a node, as its agent was told with its last heartbeat before the store
-- was lost. ARGV: node, epoch, what was told. Reply: restored · late (others may have said more since)
--        · superseded · unknown
define('kl_node_restore', 3, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local known = redis.call('HGET', p .. 'node:' .. node, 'epoch')
  if known ~= epoch then
    return refusal_of(p, known, epoch)
  end
  local state, labels = string.match(args[3], '^(%l+) (.*)$')
  if not state or not recovery_left(p, now_ms()) then
    return { 'late' }
  end
  redis.call('HSET', p .. 'node:' .. node, 'labels_user', labels)
  write_labels(p, node)
  write_mark(p, node, state)
  return { 'restored' }
end)

-- Sets and removes labels of a node; those of its agent's settings can only be set over.
-- ARGV: node, most labels, n, n pairs of key and value, then the keys to remove
-- Reply: labelled · absent · full (too many)
define_on_whole('kl_node_label', 3, CREATES, function(p, args)
  local node, labels_max, count = args[1], number(args[2]), number(args[3])
  local key = p .. 'node:' .. node
  local known = fields_of(key, 'epoch', 'labels_user')
  if not known[1] then
    return { 'absent' }
  end
  local labels = {}
  for name, value in string.gmatch(known[2] or '', '([^=,]+)=([^=,]*)') do
    labels[name] = value
  end
  for pair = 1, count do
    labels[args[2 + pair * 2]] = args[3 + pair * 2]
  end
  for position = 4 + count * 2, #args do
    labels[args[position]] = nil
  end
  local pairs_ = {}
  for name, value in pairs(labels) do
    pairs_[#pairs_ + 1] = name .. '=' .. value
  end
  if #pairs_ > labels_max then
    return { 'full' }
  end
  table.sort(pairs_)
  redis.call('HSET', key, 'labels_user', table.concat(pairs_, ','))
  if write_labels(p, node) then
    write_event(p, 'node-labelled', 'user', { node, '' }, redis.call('HGET', key, 'labels'))
    write_nodes_changed(p)
  end
  return { 'labelled' }
end)

-- Says whether a node is given pods, and whether those it has are to be moved elsewhere.
-- ARGV: node, cordon (no new pods), drain (nor the old ones) or open. Reply: marked · absent
define_on_whole('kl_node_mark', 2, KEEPS, function(p, args)
  local node, wish = args[1], args[2]
  local key = p .. 'node:' .. node
  if not fields_of(key, 'epoch')[1] then
    return { 'absent' }
  end
  local state = state_of(wish == 'cordon', wish == 'drain')
  if write_mark(p, node, state) then
    local told = { ready = 'it gets pods again', cordoned = 'it gets no new pods',
      draining = 'it gets no new pods, and its pods are moved' }
    local kind = state == 'ready' and 'node-uncordoned' or 'node-' .. state
    write_event(p, kind, 'user', { node, '' }, told[state])
    if state == 'ready' then
      write_nodes_changed(p)
    end
  end
  return { 'marked' }
end)

-- Names the nodes that drain. Reply: nodes, name ...
define('kl_node_draining', 0, READS, function(p)
  local names = redis.pcall('SMEMBERS', p .. 'nodes:draining')
  if names.err then
    return { 'nodes' }
  end
  return { 'nodes', unpack(names, 1, math.min(#names, BATCH_MAX)) }
end)

-- Moves pods off a draining node, some at a time. Those without an owner are to stop there, and
-- wait again once they have; the services of the others are told, if `tell` is 1: their controller
-- makes others first.
-- ARGV: node, cursor (0 at first), about how many pods, tell
-- Reply: moving, pods told to stop, next cursor (0 at the end) · rests (it does not drain)
define_on_whole('kl_node_evict', 4, KEEPS, function(p, args)
  local node = args[1]
  if not is_draining(p, node) then
    redis.pcall('SREM', p .. 'nodes:draining', node)
    return { 'rests' }
  end
  local found = redis.pcall('SSCAN', p .. 'cs:' .. node, args[2], 'COUNT', step_of(args[3]))
  if found.err then
    return { 'moving', '0', '0' }
  end
  local services, event = {}, {}
  for _, id in ipairs(found[2]) do
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'desired', 'node', 'owner', 'moving')
    if pod[3] == node and pod[2] == 'run' and is_on_node(pod[1]) then
      local service = string.match(pod[4] or '', '^service:(.+)$')
      if service then
        services[service] = true
      elseif not pod[5] then
        redis.call('HSET', key, 'moving', 1, 'reason', 'node ' .. node .. ' drains')
        write_over(p, 'LPUSH', p .. 'pq:' .. node, id)
        event[#event + 1] = id
        event[#event + 1] = node
      end
    end
  end
  write_event(p, 'moving', 'sweep', event, 'node ' .. node .. ' drains')
  if args[4] == '1' then
    for service in pairs(services) do
      write_changed(p, service)
    end
  end
  return { 'moving', tostring(#event / 2), found[1] }
end)

-- Forgets a node. By force also one that is heard or has pods: they wait again, and an agent that
-- is heard later registers as a new node.
-- ARGV: node, lease in ms, force (1 or 0), max pods
-- Reply: removed, pods moved · absent · heard, ms ago · occupied, pods · sweeping, pods moved (call again)
define_on_whole('kl_node_remove', 4, KEEPS, function(p, args)
  local node, lease_ms, force = args[1], number(args[2]), args[3] == '1'
  local key = p .. 'node:' .. node
  local now = now_ms()
  local is_listed = redis.call('ZSCORE', p .. 'nodes', node) or redis.call('ZSCORE', p .. 'nodes:lost', node)
  if redis.call('EXISTS', key) == 0 and not is_listed then
    return { 'absent' }
  end
  local known = fields_of(key, 'heartbeat_ms', 'state', 'left')
  local age_ms = now - number(known[1])
  if not force and known[2] ~= 'lost' and not known[3] and age_ms <= lease_ms then
    return { 'heard', tostring(age_ms) }
  end
  local pods = sums_of(p, node)
  if not force and pods > 0 then
    return { 'occupied', tostring(pods) }
  end
  if pods > 0 then -- nothing new, should there be several steps
    write_over(p, 'HSET', key, 'cordoned', 1, 'state', 'cordoned')
  end
  local moved, done = write_swept(p, node, step_of(args[4]), now, 'node ' .. node .. ' was removed')
  if not done then
    return { 'sweeping', tostring(moved) }
  end
  -- Descriptions that its agent has not read wait for other nodes too.
  for _, list in ipairs({ p .. 'rq:' .. node, p .. 'pq:' .. node }) do
    local entries = redis.pcall('LRANGE', list, 0, BATCH_MAX - 1)
    for position = #entries, 1, -1 do -- none of an error
      local entry = entries[position]
      if #entry > POD_ID_MAX or redis.call('EXISTS', p .. 'pod:' .. entry) == 0 then
        write_over(p, 'LPUSH', p .. 'sq', entry)
      end
    end
  end
  write_node_end(p, node, 'node-removed', 'user', force and 'by force' or '')
  return { 'removed', tostring(moved) }
end)

---------------------------------------------------------------------------------------------------
-- Pressure: a node gives back what it has not started, and pods leave one that is pressed for long
--
-- An agent above its pressure limit starts nothing: what it was given waits again, and another node
-- takes it. Independently of that, schedulers look at the nodes that tell which pods use most there.
-- That a pod of a service leaves such a node is a mark on the pod: its controller makes another
-- elsewhere, and stops the old one once that is ready. What all of them must agree on stands here: since
-- when a node is under pressure, how many moves there were in the last minute, which service was moved.

-- Adds a node to those that a pod avoids where another fits, and forgets the oldest.
local function write_avoid(key, avoid, node)
  local names = {}
  for name in string.gmatch(avoid or '', '[^,]+') do
    if name ~= node then
      names[#names + 1] = name
    end
  end
  names[#names + 1] = node
  while #names > AVOID_MAX do
    table.remove(names, 1)
  end
  redis.call('HSET', key, 'avoid', table.concat(names, ','), 'wants', 1)
end

-- Gives pods back that a node was given and has not started, as its agent knows: they wait again, at the
-- front of their queues. Those that ran there, that leave it anyway, or that a person pushed on
-- its own list are kept.
-- ARGV: node, epoch, why, pods ... (at most BATCH_MAX)
-- Reply: returned, then a word for each: back · kept · superseded · unknown
define('kl_pod_return', 4, KEEPS, function(p, args)
  local node, epoch = args[1], args[2]
  local known = redis.call('HGET', p .. 'node:' .. node, 'epoch')
  if known ~= epoch then
    return refusal_of(p, known, epoch)
  end
  local now = now_ms()
  local recovers = recovery_left(p, now)
  local why = shortened('given back by node ' .. node .. ', which is above its pressure limit: ' .. args[3], REASON_MAX)
  local reply, by_queue, event, owners = { 'returned' }, {}, {}, {}
  -- From the last one on: the first is pushed last, so it is served first again.
  for position = math.min(#args, BATCH_MAX + 3), 4, -1 do
    local id = args[position]
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'phase', 'desired', 'node', 'container', 'owner', 'priority', 'cpu', 'memory',
      'host_ports', 'moving', 'pushed_to', 'avoid', 'asks', 'devices')
    local fresh = pod[1] == 'scheduled' or pod[1] == 'starting' and (pod[4] or '') == ''
    local word = 'kept'
    if fresh and not recovers and pod[2] == 'run' and pod[3] == node and not pod[10] and pod[11] ~= node then
      write_room(p, node, 1, pod[7], pod[8], pod[9], pod[13], pod[14])
      redis.pcall('SREM', p .. 'cs:' .. node, id)
      write_waiting(p, id, pod[5], pod[1], now, why)
      write_avoid(key, pod[12], node)
      add_to(by_queue, queue_of(p, pod[6]), id)
      event[#event + 1] = id
      event[#event + 1] = node
      owners[#owners + 1] = pod[5] or ''
      word = 'back'
    end
    reply[position - 2] = word
  end
  write_queues(p, by_queue, 'RPUSH')
  write_event(p, 'waiting', 'agent', event, why, owners)
  return reply
end)

-- Whether a pod is to leave its node, and is still there.
local function is_leaving(p, id, node)
  local pod = fields_of(p .. 'pod:' .. id, 'node', 'leaves')
  return pod[1] == node and pod[2]
end

-- Counts a heartbeat by which a node is above a threshold, once however many schedulers see it; after
-- a longer gap than `gap` it begins anew. What is not above any is forgotten, and so is one that a pod
-- is about to leave.
-- ARGV: node, its heartbeat in ms, 1 if it is above one, gap in ms
-- Reply: strained, such heartbeats, since how many ms · calm
define('kl_node_strain', 4, KEEPS, function(p, args)
  local node, beat, above, gap_ms = args[1], number(args[2]), args[3] == '1', number(args[4])
  local key = p .. 'node:' .. node
  local known = fields_of(key, 'state', 'strained_ms', 'strained_beats', 'strained_beat_ms', 'leaving')
  if not known[1] or known[1] == 'lost' then
    redis.pcall('ZREM', p .. 'nodes:strained', node)
    above = false
  end
  if known[5] and is_leaving(p, known[5], node) then
    above = false -- it counts anew from when that pod is gone
  end
  if not above then
    write_unstrained(p, node)
    return { 'calm' }
  end
  local since, beats, last = number(known[2]), number(known[3]), number(known[4])
  if beats == 0 or beat - last > gap_ms then
    since, beats = beat, 0
  end
  if beat > last or beats == 0 then
    beats = beats + 1
    redis.call('HSET', key, 'strained_ms', whole(since), 'strained_beats', whole(beats), 'strained_beat_ms', whole(beat))
  end
  return { 'strained', whole(beats), whole(math.max(beat, last) - since) }
end)

-- Shows pods of a node that might be moved: running ones of services.
-- ARGV: node, rest in ms, pods ...
-- Reply: culprits, {pod, attempt, service, cpu, memory, priority, replicas, 1 if its service changes, is not
--        whole or was moved within the rest, spec} ...
define('kl_node_culprits', 2, READS, function(p, args)
  local node, rest_ms = args[1], number(args[2])
  local now = now_ms()
  local reply = { 'culprits' }
  for position = 3, math.min(#args, BATCH_MAX) do
    local id = args[position]
    local pod = fields_of(p .. 'pod:' .. id, 'phase', 'desired', 'node', 'owner', 'attempt', 'cpu', 'memory',
      'priority', 'revision', 'leaves', 'ready')
    local service = string.match(pod[4] or '', '^service:(.+)$')
    if service and pod[1] == 'running' and pod[2] == 'run' and pod[3] == node and not pod[10] then
      local key = p .. 'service:' .. service
      local wish = fields_of(key, 'replicas', 'running', 'deleting', 'moved_ms', 'spec:' .. (pod[9] or ''))
      local unsettled = type(redis.pcall('ZSCORE', p .. 'services:changed', service)) == 'string'
        or wish[3] or number(wish[2]) < number(wish[1]) or pod[11] == '0'
        or wish[4] and now - number(wish[4]) < rest_ms
      reply[#reply + 1] = { id, pod[5] or '', service, string.format('%.0f', amount(pod[6])),
        string.format('%.0f', amount(pod[7])), pod[8] or 'normal', string.format('%.0f', amount(wish[1])),
        unsettled and '1' or '', wish[5] or '' }
    end
  end
  return reply
end)

-- Moves a pod off a node that is under pressure, or only suggests it: if all is as it was planned, its
-- service is whole and left alone long enough, nothing else leaves the node, and there were not too
-- many moves in the last minute.
-- ARGV: on or suggest, pod, node, attempt, why, most moves a minute, rest in ms
-- Reply: moving · suggested · gone (the pod is not there as planned) · busy (its service changes, or another
--        pod leaves the node) · resting, ms left · full, ms left
define_on_whole('kl_pod_move', 7, KEEPS, function(p, args)
  local mode, id, node, why = args[1], args[2], args[3], shortened(args[5], REASON_MAX)
  local moves_max, rest_ms, now = number(args[6]), number(args[7]), now_ms()
  local key, node_key, moves = p .. 'pod:' .. id, p .. 'node:' .. node, p .. 'moves'
  local pod = fields_of(key, 'phase', 'desired', 'node', 'attempt', 'owner', 'leaves', 'moving')
  local service = string.match(pod[5] or '', '^service:(.+)$')
  local as_planned = pod[1] == 'running' and pod[2] == 'run' and pod[3] == node and pod[4] == args[4]
  if not service or not as_planned or pod[6] or pod[7] then
    return { 'gone' }
  end
  local service_key = p .. 'service:' .. service
  local wish = fields_of(service_key, 'replicas', 'running', 'deleting', 'moved_ms')
  local on = fields_of(node_key, 'leaving', 'suggested_ms')
  local unsettled = not wish[1] or wish[3] or number(wish[2]) < number(wish[1])
    or type(redis.pcall('ZSCORE', p .. 'services:changed', service)) == 'string'
  if unsettled or on[1] and is_leaving(p, on[1], node) then
    return { 'busy' }
  end
  local rests_until = math.max(wish[4] and number(wish[4]) + rest_ms or 0,
    mode ~= 'on' and on[2] and number(on[2]) + rest_ms or 0)
  if rests_until > now then
    return { 'resting', whole(rests_until - now) }
  end
  local last_minute = redis.pcall('ZREVRANGEBYSCORE', moves, '+inf', '(' .. whole(now - MINUTE_MS), 'WITHSCORES',
    'LIMIT', 0, moves_max)
  if not last_minute.err and #last_minute >= moves_max * 2 then
    return { 'full', whole(number(last_minute[#last_minute]) + MINUTE_MS - now) }
  end
  write_over(p, 'ZADD', moves, now, id)
  redis.pcall('ZREMRANGEBYRANK', moves, 0, -(MOVES_MAX + 1))
  if mode == 'on' then
    redis.call('HSET', key, 'leaves', why, 'reason', why)
    write_unstrained(p, node)
    redis.call('HSET', node_key, 'leaving', id)
    redis.call('HSET', service_key, 'moved_ms', now)
    write_changed(p, service)
    write_event(p, 'moving', 'scheduler', { id, node }, why, pod[5])
    return { 'moving' }
  end
  redis.call('HSET', node_key, 'suggestion', 'pod ' .. id .. ' of ' .. service .. ': ' .. why, 'suggested_ms', now)
  write_event(p, 'rebalance-suggested', 'scheduler', { id, node }, why, pod[5])
  return { 'suggested' }
end)

-- Ends moves that came to nothing: where no other pod was ready in time, the old one stays. Those that
-- are done are forgotten after a minute.
-- ARGV: patience in ms, most moves looked at. Reply: expired, pods that stay
define_on_whole('kl_move_expire', 2, KEEPS, function(p, args)
  local patience_ms, now, moves = number(args[1]), now_ms(), p .. 'moves'
  local before = now - math.min(patience_ms, MINUTE_MS)
  local found = redis.pcall('ZRANGEBYSCORE', moves, '-inf', before, 'WITHSCORES', 'LIMIT', 0, step_of(args[2]))
  if found.err then
    return { 'expired', '0' }
  end
  local stay = 0
  for position = 1, #found, 2 do
    local id, moved_ms = found[position], number(found[position + 1])
    local key = p .. 'pod:' .. id
    local pod = fields_of(key, 'leaves', 'desired', 'node', 'owner')
    local is_late = pod[1] and pod[2] == 'run' and now - moved_ms >= patience_ms
    if is_late then
      redis.call('HDEL', key, 'leaves')
      redis.call('HSET', key, 'reason', '')
      local service = string.match(pod[4] or '', '^service:(.+)$')
      if service then
        write_changed(p, service)
      end
      write_event(p, 'staying', 'scheduler', { id, pod[3] or '' },
        'it was to leave its node, but no other was ready in its place in time', pod[4])
      stay = stay + 1
    end
    if now - moved_ms >= MINUTE_MS and (is_late or not pod[1]) then
      redis.call('ZREM', moves, id)
    end
  end
  return { 'expired', tostring(stay) }
end)

---------------------------------------------------------------------------------------------------
-- Sessions: what the API asks of a node's agent (logs, exec, stats), and both say to each other
--
-- An agent listens on no port. It reads nq:<node>, takes a session and talks over the session's two
-- streams: `in` to the agent, `out` to the API. A reader says what it has read, which is then
-- dropped; a writer that finds the stream full is told of room over the other one. So a slow reader
-- fills nothing. All keys expire when neither side renews them.

local function session_keys(p, id)
  local key = p .. 'session:' .. id
  return key, key .. ':in', key .. ':out'
end

-- Writes one entry to a session's stream, which may be new.
local function write_entry(p, key, ms, kind, data)
  local is_new = redis.call('EXISTS', key) == 0
  write_over(p, 'XADD', key, '*', 'kind', kind, 'data', data)
  if is_new then
    redis.call('PEXPIRE', key, ms)
  end
end

-- Writes a request to a node's agent, or with an empty one that a session is over.
local function write_request(p, node, id, request)
  local key = p .. 'nq:' .. node
  write_over(p, 'XADD', key, 'MAXLEN', REQUESTS_MAX, '*', 'session', id, 'request', request)
  redis.call('EXPIRE', key, REQUESTS_S)
end

-- How long a session's keys live without a word of either side: longer than the lease, so that who
-- is late finds out that the other side was silent.
local function session_ttl(lease_ms)
  return lease_ms * 2
end

-- Opens a session with a node's agent. ARGV: session (new), node, request, node lease in ms, lease in ms
-- Reply: opened · unknown (no such node) · lost, age of its last heartbeat in ms
--        · engine-down · busy, sessions it may have
define('kl_session_open', 5, CREATES, function(p, args)
  local id, node, request = args[1], args[2], args[3]
  local node_lease_ms, lease_ms = number(args[4]), number(args[5])
  local known = fields_of(p .. 'node:' .. node, 'heartbeat_ms', 'state', 'engine')
  local now = now_ms()
  local age = now - number(known[1])
  if not known[1] then
    return { 'unknown' }
  elseif known[2] == 'lost' or age > node_lease_ms then
    return { 'lost', whole(age) }
  elseif known[3] ~= 'up' then
    return { 'engine-down' }
  end
  local open_key = p .. 'sessions:' .. node
  local open = redis.pcall('ZCOUNT', open_key, now, '+inf')
  if type(open) == 'number' and open >= SESSIONS_MAX then
    return { 'busy', tostring(SESSIONS_MAX) }
  end
  local key = session_keys(p, id)
  write_over(p, 'HSET', key, 'node', node, 'opened_ms', now, 'api_ms', now)
  redis.call('PEXPIRE', key, session_ttl(lease_ms))
  write_over(p, 'ZADD', open_key, now + session_ttl(lease_ms), id)
  redis.call('ZREMRANGEBYSCORE', open_key, '-inf', now)
  redis.call('PEXPIRE', open_key, session_ttl(lease_ms))
  write_request(p, node, id, request)
  return { 'opened' }
end)

-- Takes a session in hand, once. ARGV: session, node, longest age of the request in ms, lease in ms
-- Reply: taken · stale (asked for too long ago) · gone (over, taken before, or another node's)
define('kl_session_take', 4, CREATES, function(p, args)
  local key, _, out_key = session_keys(p, args[1])
  local known = fields_of(key, 'node', 'opened_ms', 'agent_ms')
  local now = now_ms()
  if known[1] ~= args[2] or known[3] then
    return { 'gone' }
  elseif now - number(known[2]) > number(args[3]) then
    return { 'stale' }
  end
  redis.call('HSET', key, 'agent_ms', now)
  write_entry(p, out_key, session_ttl(number(args[4])), 'taken', '')
  return { 'taken' }
end)

-- Says something to the other side, as far as there is room.
-- ARGV: session, stream (in or out), most entries unread, lease in ms, 1 if nothing follows, then pairs of kind, data
-- Reply: written, how many (who is told fewer is told of room) · gone
define('kl_session_write', 7, CREATES, function(p, args)
  local key = session_keys(p, args[1])
  if redis.call('EXISTS', key) == 0 then
    return { 'gone' }
  end
  local stream_key = key .. ':' .. args[2]
  local length = redis.pcall('XLEN', stream_key)
  local room = math.max(0, number(args[3]) - (type(length) == 'number' and length or 0))
  local wanted = math.min(BATCH_MAX, math.floor((#args - 5) / 2))
  local count = math.min(room, wanted)
  for pair = 1, count do
    write_entry(p, stream_key, session_ttl(number(args[4])), args[4 + pair * 2], args[5 + pair * 2])
  end
  if count < wanted then
    redis.call('HSET', key, 'waits_' .. args[2], 1)
  elseif args[5] == '1' then
    redis.call('HSET', key, 'done', 1)
  end
  return { 'written', tostring(count) }
end)

-- Drops what was read, and tells a writer that waits of the room.
-- ARGV: stream (in or out), lease in ms, then pairs of session, last entry read. Reply: read
define('kl_session_read', 4, KEEPS, function(p, args)
  local stream, back = args[1], args[1] == 'out' and ':in' or ':out'
  for pair = 3, math.min(#args - 1, BATCH_MAX * 2), 2 do
    local key = session_keys(p, args[pair])
    local ms, position = string.match(args[pair + 1], '^(%d+)%-(%d+)$')
    if ms and redis.call('EXISTS', key) == 1 then
      redis.pcall('XTRIM', key .. ':' .. stream, 'MINID', ms .. '-' .. whole(tonumber(position) + 1))
      if redis.call('HDEL', key, 'waits_' .. stream) == 1 then
        write_entry(p, key .. back, session_ttl(number(args[2])), 'room', '')
      end
    end
  end
  return { 'read' }
end)

-- Renews sessions for one side. ARGV: api or agent, lease in ms, sessions ...
-- Reply: kept, then a word for each: ok · silent (the other side renewed nothing for a lease) · gone
define('kl_session_keep', 2, KEEPS, function(p, args)
  local by, lease_ms = args[1], number(args[2])
  local other = by == 'api' and 'agent_ms' or 'api_ms'
  local now, ttl = now_ms(), session_ttl(number(args[2]))
  local reply = { 'kept' }
  for position = 3, math.min(#args, BATCH_MAX) do
    local id = args[position]
    local key, in_key, out_key = session_keys(p, id)
    local known = fields_of(key, 'node', other, 'opened_ms')
    local word = 'gone'
    if known[1] then
      word = now - number(known[2] or known[3]) > lease_ms and 'silent' or 'ok'
      redis.call('HSET', key, by .. '_ms', now)
      for _, kept in ipairs({ key, in_key, out_key }) do
        redis.call('PEXPIRE', kept, ttl)
      end
      if redis.pcall('ZADD', p .. 'sessions:' .. known[1], 'XX', now + ttl, id) == 0 then
        redis.call('PEXPIRE', p .. 'sessions:' .. known[1], ttl)
      end
    end
    reply[#reply + 1] = word
  end
  return reply
end)

-- Ends sessions, and tells the agents that still work on them. ARGV: sessions ... Reply: ended
define('kl_session_end', 1, KEEPS, function(p, args)
  for position = 1, math.min(#args, BATCH_MAX) do
    local id = args[position]
    local key, in_key, out_key = session_keys(p, id)
    local known = fields_of(key, 'node', 'agent_ms', 'done')
    redis.call('DEL', key, in_key, out_key)
    if known[1] then
      redis.pcall('ZREM', p .. 'sessions:' .. known[1], id)
      if known[2] and not known[3] then
        write_request(p, known[1], id, '')
      end
    end
  end
  return { 'ended' }
end)

-- Keeps the last lines of a pod's container, for when container and node are gone. Of the oldest,
-- those beyond the bound are dropped. ARGV: pod, node, lines, most pods, ttl in s. Reply: kept
define('kl_logs_keep', 5, CREATES, function(p, args)
  local pod, pods_max, ttl_s = args[1], number(args[4]), number(args[5])
  local key, now = p .. 'logs:' .. pod, now_ms()
  write_over(p, 'HSET', key, 'node', args[2], 'saved_ms', now, 'lines', args[3])
  redis.call('EXPIRE', key, ttl_s)
  write_over(p, 'ZADD', p .. 'logs', now, pod)
  redis.call('EXPIRE', p .. 'logs', ttl_s)
  redis.call('ZREMRANGEBYSCORE', p .. 'logs', '-inf', now - ttl_s * 1000)
  local over = math.min(BATCH_MAX, redis.call('ZCARD', p .. 'logs') - pods_max)
  if over > 0 then
    for _, old in ipairs(redis.call('ZRANGE', p .. 'logs', 0, over - 1)) do
      redis.call('DEL', p .. 'logs:' .. old)
    end
    redis.call('ZREMRANGEBYRANK', p .. 'logs', 0, over - 1)
  end
  return { 'kept' }
end)
