package lease

import (
	"context"
	"fmt"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/huge"
	"github.com/usher-agent/usher/provision/wal"
)

// This file reads the leases of a log: one goroutine reads and decodes, into the memory that the table keeps, and another one takes them.

// readChunk is how many leases are read before they are told, as many as a /24 may have.
const readChunk = 256

// sink takes the leases of a store, several at a time.
type sink struct {
	room func() []entry         // returns room for readChunk of them, empty; of the goroutine that reads
	take func([]entry, []error) // with those that were read, in that room, and why others could not be; of the one that called
}

// sinkStore is a Store that fills a sink: no record is copied on its way.
type sinkStore interface {
	leasesInto(*sink) error
}

// recordSink is a sink for who wants one record after the other.
func recordSink(each func(Record, error)) *sink {
	spare := make(chan []entry, 6)
	return &sink{
		room: func() []entry {
			select {
			case all := <-spare:
				return all
			default:
				return make([]entry, 0, readChunk)
			}
		},
		take: func(all []entry, bad []error) {
			for i := range all {
				each(all[i].Record, nil)
			}
			for _, err := range bad {
				each(Record{}, err)
			}
			select {
			case spare <- all[:0]:
			default:
			}
		},
	}
}

// each is take for a Store that tells one record after the other.
func (to *sink) each() func(Record, error) {
	var room []entry
	return func(r Record, err error) {
		if err != nil {
			to.take(nil, []error{err})
			return
		}
		if len(room) == cap(room) {
			room = to.room()
		}
		n := len(room)
		room = room[:n+1]
		room[n].Record = r
		to.take(room[n:], nil)
	}
}

// At the start entries are made so many at once, an eighth of those that there are: their memory is free again when none of them is there any more.
const mostAtOnce = 1 << 14

// entryRoom returns the room of a sink for a table that begins. ahead is where entries come from that are made beforehand, until it is closed; nil: none are.
func entryRoom(ahead <-chan []entry) func() []entry {
	var made []entry
	n := 0
	return func() []entry {
		if len(made) < readChunk {
			made = <-orClosed(ahead)
		}
		if len(made) < readChunk {
			made = huge.Make[entry](min(max(n/8/readChunk, 1)*readChunk, mostAtOnce))
		}
		room := made[:0:readChunk]
		made = made[readChunk:]
		n += readChunk
		return room
	}
}

// orClosed returns c, or a closed channel in place of nil.
func orClosed(c <-chan []entry) <-chan []entry {
	if c == nil {
		closed := make(chan []entry)
		close(closed)
		return closed
	}
	return c
}

// readLeases are leases that were read, and why others could not be.
type readLeases struct {
	entries []entry
	bad     []error
}

// reader reads a log once.
type reader struct {
	s       *logStore
	ctx     context.Context
	sink    *sink // nil: nobody wants leases
	reports func(provision.MACReport, error)
	out     chan readLeases

	decoder decoder
	chunk   readLeases
}

// read reads all of a log, and what state.db had that is not in it yet.
func (r *reader) read(l *wal.Log) error {
	old := r.s.pending()
	err := l.Load(r.ctx, func(x wal.Record) error {
		if old.has(x.Kind, x.Key) {
			return nil // it has a newer one
		}
		return r.record(x)
	})
	for _, x := range old.all() {
		if err == nil {
			err = r.record(x)
		}
	}
	if err == nil && len(r.chunk.entries)+len(r.chunk.bad) > 0 {
		err = r.send()
	}
	return err
}

// record takes a record of the log: a lease into a chunk, a report into the queue.
func (r *reader) record(x wal.Record) error {
	switch {
	case x.Kind == kindLease && r.sink != nil:
		return r.lease(x)
	case x.Kind == kindReport && !r.s.loaded.Load():
		r.report(x)
	}
	return nil
}

func (r *reader) lease(x wal.Record) error {
	c := &r.chunk
	n := len(c.entries)
	if n == cap(c.entries) {
		c.entries, n = r.sink.room(), 0
	}
	c.entries = c.entries[:n+1]
	err := r.decoder.decode(&c.entries[n].Record, x.Key, x.Value)
	if err != nil {
		c.entries[n] = entry{}
		c.entries = c.entries[:n]
		if v, newer := newerRecord(x.Key, x.Value); newer {
			return newerError(r.s.path, fmt.Sprintf("lease records of version %d", v), encodingVersion)
		}
		r.s.cannotRead(err)
		c.bad = append(c.bad, err)
	}
	if len(c.entries) < cap(c.entries) && len(c.bad) < readChunk {
		return nil
	}
	return r.send()
}

func (r *reader) send() error {
	select {
	case r.out <- r.chunk:
		r.chunk = readLeases{}
		return nil
	case <-r.ctx.Done():
		return context.Cause(r.ctx)
	}
}

func (r *reader) report(x wal.Record) {
	rep, err := decodeWhole(x.Key, x.Value)
	if err != nil {
		err = fmt.Errorf("mac report, key %x, value %x: %w", x.Key, x.Value, err)
		r.s.cannotRead(err)
	} else if !r.s.queue(rep) {
		return
	}
	if r.reports != nil {
		r.reports(rep, err)
	}
}
