package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"
)

const (
	// leastGarbage is how much changes amount to before they are worth a snapshot; of a large log it is
	// half of the snapshot before, so that what is written twice is bounded.
	leastGarbage = 4 << 20
	// mostChanges bounds the number of files.
	mostChanges = 16
	// syncEvery is how much of a snapshot is written between two syncs: a sync of the newest file waits no longer for it than for that.
	syncEvery = 1 << 20
	// compactRetry is the wait after a snapshot that could not be written.
	compactRetry = time.Minute
	// largeLog is a log at the start of which the snapshot waits, as long as startTime: it takes the processors and the disk for as long as
	// the start does, which those who wait for it need.
	largeLog  = 32 << 20
	startTime = 10 * time.Second
)

// compactor writes a snapshot when enough has changed, until ctx ends.
func (l *Log) compactor(ctx context.Context) {
	var later <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.files.due:
		case <-later:
		}
		if !l.worth() {
			continue
		}
		if wait := time.Until(l.calmUntil); wait > 0 && !l.urgent() {
			later = time.After(wait)
			continue
		}
		err := l.compact(ctx)
		if ctx.Err() != nil {
			return
		}
		l.noteSnapshot(err)
		if err != nil {
			l.opts.Log.Error("no snapshot of the log could be written; the log grows until one can", "error", err, "retry_in", compactRetry)
			select {
			case <-ctx.Done():
				return
			case <-time.After(compactRetry):
				l.files.wake()
			}
		}
	}
}

// noteSnapshot keeps for Status how the last snapshot went.
func (l *Log) noteSnapshot(err error) {
	before := l.halted.Load()
	switch {
	case err == nil:
		l.halted.Store(nil)
	case before != nil:
		l.halted.Store(&Health{Err: err, Since: before.Since})
	default:
		l.halted.Store(&Health{Err: err, Since: time.Now()})
	}
}

// worth reports whether a snapshot of what is not written any more is due.
func (l *Log) worth() bool {
	var snapshot, changed int64
	n, bad := 0, false
	for _, f := range l.files.sealed() {
		bad = bad || f.bad
		if f.name.snapshot {
			snapshot += f.bytes
		} else {
			changed += f.bytes
			n++
		}
	}
	return bad || n >= mostChanges || changed > max(leastGarbage, snapshot/2)
}

// urgent reports whether a snapshot cannot wait until a start is over: a file is damaged, or there are twice as many as there should be, as after
// one start behind the other.
func (l *Log) urgent() bool {
	n := 0
	for _, f := range l.files.sealed() {
		if f.bad {
			return true
		}
		n++
	}
	return n >= 2*mostChanges
}

// compact brings all files that are not written any more together in one.
func (l *Log) compact(ctx context.Context) error {
	l.reading.Lock()
	defer l.reading.Unlock()
	files := l.files.sealed()
	if len(files) == 0 {
		return nil
	}
	n := name{seq: files[len(files)-1].name.seq, salt: newSalt(), snapshot: true}
	bytes, err := l.writeSnapshot(ctx, n, files)
	if errors.Is(err, fs.ErrNotExist) {
		l.missed.Store(true)
	}
	if err != nil {
		return err
	}
	l.keepLoose(files)
	l.files.replace(files, fileInfo{name: n, bytes: bytes, sealed: true})
	for _, f := range files {
		if err := l.disk.Remove(f.name.String()); err != nil {
			l.opts.Log.Warn("a file of the log that a snapshot replaced could not be removed; the next start does", "file", f.name.String(), "error", err)
		}
	}
	return nil
}

// replace puts a snapshot in place of the files that went into it.
func (f *filesOf) replace(old []fileInfo, by fileInfo) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.all = append([]fileInfo{by}, f.all[len(old):]...) // they were the first
}

// writeSnapshot writes a whole file, or none.
func (l *Log) writeSnapshot(ctx context.Context, n name, files []fileInfo) (size int64, err error) {
	tmp := n.String() + tmpSuffix
	f, err := l.disk.Create(tmp)
	if err != nil {
		return 0, fmt.Errorf("snapshot: %w", err)
	}
	w := snapshotWriter{ctx: ctx, file: f, seal: sealOf(n.salt)}
	w.buf = appendHeader(make([]byte, 0, syncEvery+maxValue), n, l.opts.Content, 0, 0, time.Now())
	err = l.merge(ctx, files, w.add, func(name, int64) {})
	if err == nil {
		err = w.end()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = l.disk.Rename(tmp, n.String())
	}
	if err != nil {
		return 0, errors.Join(fmt.Errorf("snapshot: %w", err), l.disk.Remove(tmp))
	}
	if err := l.disk.SyncDir(); err != nil { // both the new file and the old ones are there
		return 0, errors.Join(fmt.Errorf("snapshot: %w", err), l.disk.Remove(n.String()))
	}
	return w.at, nil
}

// snapshotWriter writes frames behind each other.
type snapshotWriter struct {
	ctx  context.Context
	file file
	seal seal
	buf  []byte
	at   int64
}

func (w *snapshotWriter) add(frame []byte) error {
	start := len(w.buf)
	w.buf = append(w.buf, frame...)
	w.buf[start+flagsAt] = 0 // the commit that it was of is over
	w.seal.reseal(w.buf[start:])
	if len(w.buf) < syncEvery {
		return nil
	}
	return w.flush()
}

func (w *snapshotWriter) flush() error {
	if w.ctx.Err() != nil {
		return context.Cause(w.ctx)
	}
	if _, err := w.file.WriteAt(w.buf, w.at); err != nil {
		return err
	}
	w.at += int64(len(w.buf))
	w.buf = w.buf[:0]
	return w.file.Sync()
}

func (w *snapshotWriter) end() error {
	w.buf = w.seal.append(w.buf, Record{Kind: endKind, Value: make([]byte, endLen-frameLen)}, 0)
	return w.flush()
}
