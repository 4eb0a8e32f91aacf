// Package audit keeps the audit log, what was decided for whom: one record for
// every decision on a token and every change by an administrator.
//
// # The form
//
// A record is a line: one JSON object in ASCII, not longer than 4096 bytes, as in
//
//	{"chain":"5bd1…","seq":7,"time":"2026-11-24T16:34:05.123456Z","event":"token",…,"prev":"9f2c…","hash":"0d44…"}
//
// chain is random and names who wrote it, seq counts its records from 1 without a
// gap, prev is the hash of the record before (of the first: 64 zeros), and hash is
// the SHA-256, in lower-case hex, of the line's own bytes up to the comma before
// "hash". So another program can verify a file in a few lines, as this one in Python:
//
//	import hashlib, json, sys
//	follows = {}
//	for number, line in enumerate(open(sys.argv[1], "rb"), 1):
//	    line = line.rstrip(b"\n")
//	    record = json.loads(line)
//	    if hashlib.sha256(line[:-75]).hexdigest() != record["hash"]:
//	        print("line", number, "was changed")
//	    if (record["seq"], record["prev"]) != follows.get(record["chain"], (1, "0" * 64)):
//	        print("line", number, "does not follow")
//	    follows[record["chain"]] = (record["seq"] + 1, record["hash"])
//
// Three events are the log's own. A "start" record is the first of each process; it
// says the format, the host, and how many bytes were torn, if the file ended in the
// middle of a line: their number and SHA-256, counted with the newline that ends
// them. "stop" is the last of a process that ended as it should. "dropped" says how
// many records were not taken since when.
//
// A chain shows that something was edited, removed, inserted or moved. It does not
// show that all from some record on was written anew, or cut off at the end: for
// that its head goes to the process's log too (see Log.Run), to be kept elsewhere.
//
// # Where it goes
//
// To a file, the chain goes on over restarts and rotation. A file belongs to one
// process; records of changes are synced before the change is made, others within a
// second. When the path is no longer the file that is open, a new one is begun with
// the next seq. Who rotates by copying and truncating loses what was written in
// between, and Verify says which seq are missing.
//
// To standard output or syslog, each process begins a chain of its own, and a
// record counts as written once it was handed over.
//
// # When it cannot be written
//
// Calls for tokens go on, changes do not: see Log.Decision and Log.Change. What was
// taken is kept in memory, up to a bound, and written once that is possible again.
package audit

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
)

// defaultQueueLength is enough for 0.3 s of 50,000 decisions a second: longer than
// a disk mostly takes to sync. Full, it takes 4 MiB, twice over.
const defaultQueueLength = 16384

// ErrUnavailable says that a record could not be taken or was not written in time.
var ErrUnavailable = errors.New("the audit log cannot be written")

// Record is what is said about one event. All of it is optional, none of it may be
// secret. Texts may come from callers: they are clipped and escaped when they are
// written. The time is set by the log.
type Record struct {
	Event     string   `json:"event,omitempty"` // lower case: "token", "change", "view", "refused" …; none of the log's own
	Phase     string   `json:"phase,omitempty"` // "begin" before a change, "end" after it
	RequestID string   `json:"request_id,omitempty"`
	Principal string   `json:"principal,omitempty"` // who
	Peer      string   `json:"peer,omitempty"`      // from where
	Method    string   `json:"method,omitempty"`
	Tenant    string   `json:"tenant,omitempty"`
	Scopes    []string `json:"scopes,omitempty"` // asked for
	Fields    []string `json:"fields,omitempty"` // names of those that a change sets, never their values
	TokenID   string   `json:"token_id,omitempty"`
	Rule      string   `json:"rule,omitempty"`    // what allowed it
	Outcome   string   `json:"outcome,omitempty"` // "allowed", "denied", "failed", "done"
	Code      string   `json:"code,omitempty"`    // of gRPC, its name
	Reason    string   `json:"reason,omitempty"`  // of the ErrorInfo
}

// Config is what a Log needs.
type Config struct {
	// Sink is where records go: what ValidateSink accepts.
	Sink string
	// Stdout is what the sink "stdout" writes to; nil: os.Stdout. A pipe whose reader
	// is gone ends the process, unless it ignores SIGPIPE.
	Stdout io.Writer
	// Logger hears of failures, and of the chain's head; nil: nobody does.
	Logger *slog.Logger
	// Strict has decisions refused that cannot be recorded, see Log.Decision.
	Strict bool
	// QueueLength bounds how many records wait to be written; 0: 16384.
	QueueLength int
}

// Stats counts since Open.
type Stats struct {
	Written uint64 // records that callers gave, written
	Dropped uint64 // records that callers gave, not taken or not written at the end
	Failed  uint64 // attempts to write that failed; each is repeated
	Queued  uint64 // records that wait to be written
	// Stuck says that the last attempt to write has failed, or lasts for too long:
	// changes are refused.
	Stuck bool
	// Full says that as many records wait as may: those of decisions are dropped, and
	// the calls are refused if the log is strict.
	Full bool
}

// Log is an audit log. A nil Log, and one with the sink "none", keeps nothing and
// allows everything. It is safe for concurrent use.
type Log struct {
	sink   sink // nil: none. Used by Run's worker alone.
	logger *slog.Logger
	strict bool
	length int

	start    own   // what the first record says
	chain    chain // goes on in Run alone
	tampered bool  // the file's last record was changed

	queue
	written, dropped, failed atomic.Uint64
	stuck                    atomic.Bool
}

// sink takes lines. write appends whole lines, and has them on disk when it returns
// nil, if sync is wanted and the sink can do that. After an error the first n bytes,
// whole lines, need not be written again; the others are, by another call that
// begins with them. write may block.
type sink interface {
	write(lines []byte, sync bool) (n int, err error)
	close() error
}

// Open opens a log, but starts nothing: see Log.Run. A file is created if it is not
// there, readable by its owner only, and is locked until Run returns. Opening fails
// if the sink is none of those there are, or the file is locked by another process,
// or is no audit log. Syslog is connected to when there is something to write.
func Open(c Config) (*Log, error) {
	s, err := parseSink(c.Sink)
	if err != nil {
		return nil, err
	}
	l := &Log{logger: c.Logger, strict: c.Strict, length: c.QueueLength, chain: chain{head: newHead()}}
	if l.logger == nil {
		l.logger = slog.New(slog.DiscardHandler)
	}
	if l.length <= 0 {
		l.length = defaultQueueLength
	}
	l.queue.init()
	host, _ := os.Hostname() // Without, the record says none.
	l.start = own{Format: format, Host: clip(host, maxText)}
	switch s.kind {
	case sinkNone:
	case sinkStdout:
		if c.Stdout == nil {
			c.Stdout = os.Stdout
		}
		l.sink = &stream{to: c.Stdout}
	case sinkSyslog:
		l.sink, err = newSyslog(s.network, s.address)
	case sinkFile:
		err = l.openFile(s.path)
	}
	if err != nil {
		return nil, fmt.Errorf("audit log: %w", err)
	}
	return l, nil
}

func (l *Log) openFile(path string) error {
	f, end, err := openFile(path, l.logger)
	if err != nil {
		return err
	}
	l.sink = f
	if end.found {
		l.chain.head, l.tampered = end.head, end.changed
	}
	if len(end.torn) > 0 {
		l.start.TornBytes, l.start.TornSHA256 = tornSum(end.torn)
	}
	return nil
}

// off says that nothing is kept.
func (l *Log) off() bool { return l == nil || l.sink == nil }

// Stats returns what was counted until now.
func (l *Log) Stats() Stats {
	if l.off() {
		return Stats{}
	}
	waiting := l.waiting()
	return Stats{Written: l.written.Load(), Dropped: l.dropped.Load(), Failed: l.failed.Load(), Queued: uint64(waiting),
		Stuck: l.stuck.Load(), Full: waiting >= l.length}
}
