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

// memDisk is a disk that can lose power: what was not synced is there or not, sector by sector and name by name.
type memDisk struct {
	mu      sync.Mutex
	names   map[string]*memFile
	durable map[string]*memFile // names as of the last SyncDir
	aside   map[string][]byte
	locked  bool
	fail    func(op string) error // nil: everything works
	broken  func(at int64) error
	syncs   int
}

type memFile struct {
	disk          *memDisk
	data, durable []byte
	from, to      int // what was written since the last Sync is within
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

// crash returns the disk as the next start finds it.
func (d *memDisk) crash(rng *rand.Rand) *memDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	after := newMemDisk()
	names := maps.Clone(d.durable)
	for n, f := range d.names { // made or renamed since
		if names[n] != f && rng.IntN(2) == 0 {
			names[n] = f
		}
	}
	for n, f := range d.durable { // removed or renamed since
		if d.names[n] != f && names[n] == f && rng.IntN(2) == 0 {
			delete(names, n)
		}
	}
	for n, f := range names {
		data := slices.Clone(f.durable)
		if len(f.data) > len(data) && rng.IntN(2) == 0 {
			data = append(data, make([]byte, len(f.data)-len(data))...)
		}
		for at := 0; at < len(data); at += sector {
			end := min(at+sector, len(data), len(f.data))
			if end > at && rng.IntN(2) == 0 {
				copy(data[at:end], f.data[at:end])
			}
		}
		file := &memFile{disk: after, data: data, durable: slices.Clone(data)}
		after.names[n], after.durable[n] = file, file
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
	f.put(b, at)
	return len(b), nil
}

func (f *memFile) put(b []byte, at int64) {
	if end := int(at) + len(b); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	copy(f.data[at:], b)
	if f.from == f.to {
		f.from, f.to = int(at), int(at)
	}
	f.from, f.to = min(f.from, int(at)), max(f.to, int(at)+len(b))
}

func (f *memFile) Sync() error {
	f.disk.mu.Lock()
	defer f.disk.mu.Unlock()
	f.disk.syncs++
	if err := f.disk.try("sync"); err != nil {
		return err
	}
	if n := len(f.data); n > len(f.durable) {
		f.durable = append(f.durable, f.data[len(f.durable):]...)
	}
	copy(f.durable[f.from:f.to], f.data[f.from:f.to])
	f.from, f.to = 0, 0
	return nil
}

func (f *memFile) Close() error { return nil }

var testTime = time.Unix(1_800_000_000, 0)

var errDisk = errors.New("the disk is full")
