// made by docs/generate.py from tracesvc/events.py

export const EVENTS = [
  [1, "proc_start", [["kind", "int"], ["thread", "int"], ["name", "string"]]],
  [2, "proc_stop", []],
  [3, "task_create", [["task", "int"], ["parent", "int"], ["nursery", "int"], ["name", "string"], ["entry", "string"]]],
  [4, "task_waiting", [["task", "int"], ["reason", "int"], ["object", "int"]]],
  [5, "task_runnable", [["task", "int"], ["waker", "int"], ["cause", "int"]]],
  [6, "step_start", [["task", "int"]]],
  [7, "step_yield", [["task", "int"]]],
  [8, "step_block", [["task", "int"], ["reason", "int"], ["object", "int"]]],
  [9, "task_exit", [["task", "int"]]],
  [10, "io_wait_start", [["timeout", "int"]]],
  [11, "io_wait_end", []],
  [12, "thread_start", [["task", "int"], ["function", "string"]]],
  [13, "thread_end", [["task", "int"]]],
  [14, "gc_start", [["generation", "int"]]],
  [15, "gc_end", [["generation", "int"], ["collected", "int"]]],
  [16, "span_begin", [["span", "int"], ["parent", "int"], ["task", "int"], ["name", "string"], ["attributes", "data"]]],
  [17, "span_end", [["span", "int"], ["task", "int"]]],
  [18, "region_begin", [["region", "int"], ["task", "int"], ["name", "string"], ["attributes", "data"]]],
  [19, "region_end", [["region", "int"], ["task", "int"]]],
  [20, "log", [["task", "int"], ["span", "int"], ["level", "int"], ["cut", "int"], ["message", "data"], ["attributes", "data"]]],
  [21, "counter", [["name", "string"], ["value", "float"], ["task", "int"]]],
  [22, "task_stack", [["task", "int"], ["stack", "stack"]]],
  [23, "step_stack", [["task", "int"], ["stack", "stack"], ["lasted", "int"], ["late", "int"]]],
  [24, "overhead", [["level", "int"], ["share", "float"], ["left_out", "string"]]],
];

export const REASONS = [
  {"name": "none", "meaning": "not blocked", "identity": ""},
  {"name": "sleep", "meaning": "a deadline: trio.sleep and its relatives", "identity": ""},
  {"name": "channel_send", "meaning": "room in a memory channel", "identity": "channel"},
  {"name": "channel_receive", "meaning": "an item of a memory channel", "identity": "channel"},
  {"name": "lock", "meaning": "a trio.Lock or StrictFIFOLock", "identity": "lock"},
  {"name": "semaphore", "meaning": "a trio.Semaphore", "identity": "semaphore"},
  {"name": "limiter", "meaning": "a trio.CapacityLimiter", "identity": "limiter"},
  {"name": "condition", "meaning": "a trio.Condition to be notified", "identity": "condition"},
  {"name": "event", "meaning": "a trio.Event to be set", "identity": "event"},
  {"name": "nursery", "meaning": "the children of a nursery to finish", "identity": "nursery"},
  {"name": "readable", "meaning": "a socket or pipe to become readable", "identity": "file descriptor"},
  {"name": "writable", "meaning": "a socket or pipe to become writable", "identity": "file descriptor"},
  {"name": "thread", "meaning": "a worker thread (trio.to_thread)", "identity": ""},
  {"name": "process", "meaning": "a child process to exit", "identity": ""},
  {"name": "signal", "meaning": "a signal (trio.open_signal_receiver)", "identity": ""},
  {"name": "parked", "meaning": "anything else that suspends a task", "identity": "parking lot, where there is one"},
];

export const CAUSES = [
  {"name": "unknown", "meaning": "the run loop, for a reason that does not show: `trio.testing.wait_all_tasks_blocked`"},
  {"name": "task", "meaning": "the waker: it sent, received, set, released, finished"},
  {"name": "io", "meaning": "a file descriptor became ready (it is the object of the wait), or a child process exited"},
  {"name": "timer", "meaning": "a deadline passed: the end of a sleep, or a cancel scope's timeout"},
  {"name": "thread", "meaning": "another thread: a worker thread's result, `trio.from_thread`, a `trio.lowlevel.TrioToken`"},
  {"name": "cancel", "meaning": "a cancellation that the waker asked for"},
  {"name": "signal", "meaning": "a signal: `trio.open_signal_receiver`, or Ctrl-C"},
];

export const LOSSES = [
  null,
  {"name": "queue_full", "meaning": "the reader was behind: the full queue had no room"},
  {"name": "no_reader", "meaning": "nobody read the trace, or the reader's run had ended"},
  {"name": "sink_full", "meaning": "a sink was behind: its own queue had no room"},
  {"name": "sink_failed", "meaning": "a sink failed and was dropped"},
  {"name": "quota", "meaning": "a service refused them: over quota"},
  {"name": "crash", "meaning": "the process ended before they were handed over"},
  {"name": "damage", "meaning": "a frame was damaged on its way"},
  {"name": "no_memory", "meaning": "the process had no memory left to record them in"},
];

export const PROC_KINDS = [
  "process",
  "run",
  "thread",
  "task",
];
