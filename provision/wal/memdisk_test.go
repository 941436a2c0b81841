package wal

import (
	"bytes"
	"errors"
	"io/fs"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// memDisk is a disk under Linux that can lose power: what was not synced is there or not, sector by sector and name by name. Who reads is shown
// what was written last, from memory. After a sync that failed that goes on, but nobody brings it to disk any more: the
// pages count as written, the next sync succeeds without them, and a loss of power takes them away.
type memDisk struct {
	mu      sync.Mutex
	names   map[string]*memFile
	durable map[string]*memFile // names as of the last SyncDir
	aside   map[string][]byte
	locked  bool
	fail    func(op string) error // nil: everything works
	broken  func(at int64) error
	syncs   int
	limit   int        // of bytes of all files together; 0: none
	rng     *rand.Rand // which sectors reach the disk in a sync that fails; nil: none
}

type memFile struct {
	disk    *memDisk
	data    []byte // as who reads it is shown it
	durable []byte // on disk
	dirty   []bool // pages of data that were written since the last Sync, whatever came of that
	bad     error  // of each Sync: a place of the disk that takes nothing any more
}

const sector = 512

func newMemDisk() *memDisk {
	return &memDisk{names: map[string]*memFile{}, durable: map[string]*memFile{}, aside: map[string][]byte{}}
}

func (d *memDisk) try(op string) error {
	if d.fail == nil {
		return nil
	}
	return d.fail(op)
}

func (d *memDisk) setFail(fail func(op string) error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = fail
}

// crash returns the disk as the next start finds it after a loss of power. nil: nothing got there that was not synced.
func (d *memDisk) crash(rng *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	got := func() bool { return rng != nil && rng.IntN(2) == 0 }
	after := newMemDisk()
	names := maps.Clone(d.durable)
	for n, f := range d.names { // made or renamed since
		if names[n] != f && got() {
			names[n] = f
		}
	}
	for n, f := range d.durable { // removed or renamed since
		if d.names[n] != f && names[n] == f && got() {
			delete(names, n)
		}
	}
	for n, f := range names {
		file := f.clone(after)
		if len(file.data) > len(file.durable) && got() {
			file.grow(len(file.data))
		}
		file.writeBack(got)
		file.data = slices.Clone(file.durable)
		after.names[n], after.durable[n] = file, file
	}
	return after
}

// kill returns the disk as the next start finds it after the process was killed: the kernel has all that was written, on disk or not. What that
// process still does is not seen there. It is called by a fail, or with d.mu held.
func (d *memDisk) kill() *memDisk {
	after := newMemDisk()
	clones := map[*memFile]*memFile{}
	for _, names := range []map[string]*memFile{d.names, d.durable} {
		for _, f := range names {
			if clones[f] == nil {
				clones[f] = f.clone(after)
			}
		}
	}
	for n, f := range d.names {
		after.names[n] = clones[f]
	}
	for n, f := range d.durable {
		after.durable[n] = clones[f]
	}
	return after
}

func (d *memDisk) Lock() (func() error, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.locked {
		return nil, ErrInUse
	}
	d.locked = true
	return func() error {
		d.mu.Lock()
		defer d.mu.Unlock()
		d.locked = false
		return nil
	}, nil
}

func (d *memDisk) List() ([]string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Sorted(maps.Keys(d.names)), d.try("list")
}

type memSource struct {
	*bytes.Reader
	broken func(at int64) error // nil: all of it can be read
}

func (memSource) Close() error           { return nil }
func (s memSource) Size() (int64, error) { return s.Reader.Size(), nil }

func (s memSource) ReadAt(b []byte, at int64) (int, error) {
	for n := 0; s.broken != nil && n < len(b); n += blockSize {
		if err := s.broken(at + int64(n)); err != nil {
			n = int((at+int64(n))/blockSize*blockSize - at)
			n, _ = s.Reader.ReadAt(b[:max(0, n)], at)
			return n, err
		}
	}
	return s.Reader.ReadAt(b, at)
}

func (d *memDisk) Open(name string) (source, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, ok := d.names[name]
	if !ok {
		return nil, fs.ErrNotExist
	}
	return memSource{bytes.NewReader(slices.Clone(f.data)), d.broken}, d.try("open")
}

func (d *memDisk) Create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.try("create"); err != nil {
		return nil, err
	}
	if _, ok := d.names[name]; ok {
		return nil, fs.ErrExist
	}
	f := &memFile{disk: d}
	d.names[name] = f
	return f, nil
}

func (d *memDisk) Sync(name string) error {
	d.mu.Lock()
	f, ok := d.names[name]
	d.mu.Unlock()
	if !ok {
		return fs.ErrNotExist
	}
	return f.Sync()
}

func (d *memDisk) Rename(from, to string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.try("rename"); err != nil {
		return err
	}
	d.names[to] = d.names[from]
	delete(d.names, from)
	return nil
}

func (d *memDisk) Remove(name string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.try("remove"); err != nil {
		return err
	}
	delete(d.names, name)
	return nil
}

func (d *memDisk) Aside(name string) (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.aside[name]; !ok {
		d.aside[name] = slices.Clone(d.names[name].data)
	}
	return asideName + "/" + name, nil
}

func (d *memDisk) SyncDir() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.try("syncdir"); err != nil {
		return err
	}
	d.durable = maps.Clone(d.names)
	return nil
}

func (d *memDisk) Same(name string, f file) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return file(d.names[name]) == f
}

func (f *memFile) WriteAt(b []byte, at int64) (int, error) {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	if err := f.disk.try("write"); err != nil {
		n := len(b) / 2
		f.put(b[:n], at)
		return n, err
	}
	if f.disk.isFull(max(0, int(at)+len(b)-len(f.data))) {
		return 0, errDisk
	}
	f.put(b, at)
	return len(b), nil
}

// isFull reports whether there is no room for some more bytes.
func (d *memDisk) isFull(more int) bool {
	for _, f := range d.names {
		more += len(f.data)
	}
	return d.limit > 0 && more > d.limit
}

func (f *memFile) put(b []byte, at int64) {
	if end := int(at) + len(b); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[at:], b)
	if pages := (len(f.data) + pageSize - 1) / pageSize; pages > len(f.dirty) {
		f.dirty = append(f.dirty, make([]bool, pages-len(f.dirty))...)
	}
	for page := int(at) / pageSize; page*pageSize < int(at)+len(b); page++ {
		f.dirty[page] = true
	}
}

func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.syncs++
	if err := errors.Join(f.disk.try("sync"), f.bad); err != nil {
		f.writeBack(func() bool { return f.disk.rng != nil && f.disk.rng.IntN(2) == 0 })
		return err
	}
	f.writeBack(func() bool { return true })
	return nil
}

// writeBack brings pages that were written to disk, each sector that gets there. They count as written then.
func (f *memFile) writeBack(gets func() bool) {
	for page, dirty := range f.dirty {
		if !dirty {
			continue
		}
		f.dirty[page] = false
		for at := page * pageSize; at < min((page+1)*pageSize, len(f.data)); at += sector {
			if end := min(at+sector, len(f.data)); gets() {
				f.grow(end)
				copy(f.durable[at:end], f.data[at:end])
			}
		}
	}
}

// grow has room for n bytes on disk at least.
func (f *memFile) grow(n int) {
	if n > len(f.durable) {
		f.durable = append(f.durable, make([]byte, n-len(f.durable))...)
	}
}

func (f *memFile) clone(d *memDisk) *memFile {
	return &memFile{disk: d, data: slices.Clone(f.data), durable: slices.Clone(f.durable), dirty: slices.Clone(f.dirty)}
}

func (f *memFile) Close() error { return nil }

var testTime = time.Unix(1_800_000_000, 0)

var errDisk = errors.New("the disk is full")
