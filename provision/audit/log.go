package audit

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"
)

const (
	// maxWaiting bounds the records that wait for the disk.
	maxWaiting = 4096
	// retryAfter is how long a disk that failed is left alone.
	retryAfter = time.Second
)

// Outcome is what became of a record. A closed set: it is a metric label.
type Outcome string

// The outcomes.
const (
	OutcomeWritten Outcome = "written"
	OutcomeLost    Outcome = "lost" // the disk failed for so long that no more could wait, or until the end
)

// Outcomes returns all of them.
func Outcomes() []Outcome { return []Outcome{OutcomeWritten, OutcomeLost} }

// Observer sees what becomes of records. Its methods must not block or call back.
type Observer interface {
	AuditRecords(o Outcome, n int)
	AuditFailed() // a write failed; its records wait
}

// Log is the agent's side: Add never waits, and one goroutine at a time writes.
// Run runs once; Close may come with or without it.
type Log struct {
	file file
	obs  Observer
	log  *slog.Logger
	now  func() time.Time
	wake chan struct{} // one slot, coalescing

	writing sync.Mutex // held by who writes; never taken by Add

	mu      sync.Mutex // guards the rest
	waiting [][]byte   // oldest first; only who writes takes away
	lost    int        // since the last record that was written
	failing bool
	closed  bool
}

// NewLog makes the log of a state directory. The file is opened for each write,
// so a disk that was full, or a directory that was not there, needs no more than to be well again.
func NewLog(dir string, obs Observer, log *slog.Logger, now func() time.Time) *Log {
	return &Log{file: file{filepath.Join(dir, fileName), maxSize}, obs: obs, log: log, now: now, wake: make(chan struct{}, 1)}
}

// Add takes a record, and is the time of the act where it has none. It never
// waits: where too many do already, the record is lost and counted.
func (l *Log) Add(r Record) {
	line, err := r.line(l.now())
	if err == nil && l.put(line) {
		return
	}
	l.obs.AuditRecords(OutcomeLost, 1)
	if err != nil { // not with our own types
		l.log.Error("audit record cannot be made", "act", r.Act, "error", err)
	}
}

func (l *Log) put(line []byte) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || len(l.waiting) >= maxWaiting {
		l.lost++
		if l.lost == 1 && !l.closed {
			l.log.Error("audit records are lost: the disk does not take them", "file", l.file.path, "waiting", len(l.waiting))
		}
		return false
	}
	l.waiting = append(l.waiting, line)
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return true
}

// Run writes records until ctx ends; it returns nil then.
func (l *Log) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.wake:
		}
		for l.flush() != nil {
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(retryAfter):
			}
		}
	}
}

// Close writes what waits, once, and brings it to the disk. What cannot be
// written is lost, and so is what is added later.
func (l *Log) Close() error {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	err := l.flush()
	l.mu.Lock()
	left := len(l.waiting)
	l.waiting = nil
	l.mu.Unlock()
	if err != nil {
		l.obs.AuditRecords(OutcomeLost, left)
		return fmt.Errorf("%w (%d records are lost)", err, left)
	}
	return l.file.sync()
}

// flush writes all that waits. What fails goes on waiting.
func (l *Log) flush() error {
	l.writing.Lock()
	defer l.writing.Unlock()
	for {
		l.mu.Lock()
		lines := l.waiting
		l.mu.Unlock()
		if len(lines) == 0 {
			return nil
		}
		n, err := l.file.append(lines)
		l.obs.AuditRecords(OutcomeWritten, n)
		l.written(n, err)
		if err != nil {
			l.obs.AuditFailed()
			return err
		}
	}
}

// written takes away what was written, and tells when the disk begins to fail and when it is well.
func (l *Log) written(n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.waiting = l.waiting[n:]
	if len(l.waiting) == 0 {
		l.waiting = nil
	}
	switch {
	case err != nil && !l.failing:
		l.failing = true
		l.log.Error("audit records cannot be written; they are kept in memory and tried again", "error", err)
	case err == nil && l.failing:
		l.failing = false
		l.log.Info("audit records are written again", "lost", l.lost)
	}
	if err == nil && l.lost > 0 && !l.closed {
		line, merr := Record{Act: Lost, Who: Who{By: ByAgent}, What: What{Records: l.lost}, Result: Failed}.line(l.now())
		if merr == nil {
			l.waiting, l.lost = append(l.waiting, line), 0
		}
	}
}
