package wal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// disk is where the files are: a directory of the host, or what a test makes of it.
type disk interface {
	// Lock takes the directory for one owner; unlock lets it go. It makes the directory if it is missing. The error is
	// errNoLock where nothing can be written, and so nobody else writes, but what is there can be read.
	Lock() (unlock func() error, err error)
	List() ([]string, error)
	Open(name string) (source, error)
	Create(name string) (file, error)
	// Sync returns when what anybody wrote to a file is on disk.
	Sync(name string) error
	Rename(from, to string) error
	Remove(name string) error
	// Aside keeps a damaged file in a directory of its own and returns where. errManyAside if there are maxAside already.
	Aside(name string) (string, error)
	SyncDir() error
	// Same reports whether name still leads to f: the directory was not taken away or replaced.
	Same(name string, f file) bool
}

var errNoFile = errors.New("it is not a regular file")

var errManyAside = fmt.Errorf("%d damaged files, or %d MiB of them, are kept already", maxAside, maxAsideBytes>>20)

var errNoLock = errors.New("the directory of the log cannot be written")

// source is a file to read.
type source interface {
	io.ReaderAt
	io.Closer
	Size() (int64, error)
}

// file is a file to write.
type file interface {
	io.WriterAt
	// Sync returns when what was written is on disk (fdatasync).
	Sync() error
	Close() error
}

// dir is a directory of the host.
type dir string

const (
	lockName  = "lock"
	asideName = "damaged"
	// maxAside bounds the damaged files that are kept: a disk that fails again and again shall not fill itself with them.
	maxAside, maxAsideBytes = 32, 256 << 20
	// lockWait is how long another owner may take to let go: it is stopping.
	lockWait = 2 * time.Second
)

func (d dir) path(name string) string { return filepath.Join(string(d), name) }

func (d dir) Lock() (func() error, error) {
	if err := os.Mkdir(string(d), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if _, err := os.Lstat(d.path(lockName)); errors.Is(err, fs.ErrNotExist) {
		// It was made just now, or by a process that was killed before it came to this: what will be committed in it shall not go with its name.
		if err := dir(filepath.Dir(filepath.Clean(string(d)))).SyncDir(); err != nil {
			return nil, err
		}
	}
	f, err := os.OpenFile(d.path(lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		// What is here can be read also where nothing can be written. The lock file there is enough
		// then; without one nobody ever wrote here.
		readable, rerr := os.Open(d.path(lockName))
		switch {
		case errors.Is(rerr, fs.ErrNotExist):
			return nil, errNoLock
		case rerr != nil:
			return nil, err
		}
		f = readable
	}
	for deadline := time.Now().Add(lockWait); ; <-time.After(20 * time.Millisecond) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(&fs.PathError{Op: "lock", Path: f.Name(), Err: err}, f.Close())
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(ErrInUse, f.Close())
		}
	}
}

func (d dir) List() ([]string, error) {
	list, err := os.ReadDir(string(d))
	names := make([]string, 0, len(list))
	for _, e := range list {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, err
}

type sourceFile struct{ *os.File }

func (f sourceFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// Data returns where the next bytes after at are that are there, and no hole; beyond any size: there are none.
func (f sourceFile) Data(at int64) int64 {
	to, err := unix.Seek(int(f.Fd()), at, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return math.MaxInt64
	case err != nil:
		return at
	}
	return to
}

func (d dir) Open(name string) (source, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0) // who opens a pipe would wait for a writer
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: f.Name(), Err: errNoFile}, err, f.Close())
	}
	return sourceFile{f}, nil
}

type outFile struct{ *os.File }

func (f outFile) Sync() error {
	for {
		if err := unix.Fdatasync(int(f.Fd())); !errors.Is(err, unix.EINTR) {
			if err != nil {
				return &fs.PathError{Op: "fdatasync", Path: f.Name(), Err: err}
			}
			return nil
		}
	}
}

func (d dir) Create(name string) (file, error) {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return outFile{f}, nil
}

func (d dir) Sync(name string) error {
	f, err := os.OpenFile(d.path(name), os.O_WRONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(outFile{f}.Sync(), f.Close())
}

func (d dir) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

func (d dir) Remove(name string) error { return os.Remove(d.path(name)) }

func (d dir) Aside(name string) (string, error) {
	if err := os.Mkdir(d.path(asideName), 0o750); err != nil && !errors.Is(err, fs.ErrExist) {
		return "", err
	}
	to := d.path(filepath.Join(asideName, name))
	if _, err := os.Lstat(to); err == nil {
		return to, nil // names have a number of their own: it is this file
	}
	kept, err := os.ReadDir(d.path(asideName))
	if err != nil {
		return "", err
	}
	if len(kept) >= maxAside {
		return "", errManyAside
	}
	room := int64(0)
	for _, e := range kept {
		if info, err := e.Info(); err == nil {
			room += info.Size()
		}
	}
	if info, err := os.Stat(d.path(name)); err == nil && len(kept) > 0 && room+info.Size() > maxAsideBytes {
		return "", errManyAside
	}
	if os.Link(d.path(name), to) != nil {
		if err := d.copy(name, to); err != nil {
			return "", err
		}
	}
	// Both names, before the one that is left to it is removed.
	return to, errors.Join(dir(d.path(asideName)).SyncDir(), d.SyncDir())
}

// copy copies a file where the file system knows no second name for one. What cannot be read of it is zeros.
func (d dir) copy(name, to string) (err error) {
	from, err := d.Open(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	size, err := from.Size()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(to+tmpSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	block := make([]byte, blockSize)
	for at := int64(0); at < size && err == nil; at += blockSize {
		n, _ := from.ReadAt(block, at) // what the disk does not give is left out: it is why the file is here
		_, err = out.WriteAt(block[:n], at)
	}
	if err == nil {
		err = out.Truncate(size)
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(out.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(out.Name()))
	}
	return nil
}

func (d dir) SyncDir() error {
	f, err := os.Open(string(d))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func (d dir) Same(name string, f file) bool {
	out, ok := f.(outFile)
	if !ok {
		return false
	}
	there, err := os.Stat(d.path(name))
	here, err2 := out.Stat()
	return err == nil && err2 == nil && os.SameFile(there, here)
}
