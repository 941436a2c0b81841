package audit

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	fileName = "audit.jsonl"
	fileMode = 0o640
	maxSize  = 8 << 20 // of one file
	oldFiles = 3       // beside the one that grows: audit.jsonl.1 is the newest of them
)

// file is the file of records and those that it was before. Several processes
// may append to it at once: each record is one write at the end, and who renames holds a lock.
type file struct {
	path string
	max  int64
}

// Append writes one record into the state directory dir and returns when the
// kernel has it: for commands, which end then. It makes no directory.
func Append(dir string, r Record) error {
	line, err := r.line(time.Now())
	if err == nil {
		_, err = file{filepath.Join(dir, fileName), maxSize}.append([][]byte{line})
	}
	return err
}

// append writes lines and returns how many of them are in the file whole.
func (f file) append(lines [][]byte) (n int, err error) {
	for n < len(lines) && err == nil {
		var k int
		k, err = f.appendSome(lines[n:])
		n += k
	}
	if err != nil {
		return n, fmt.Errorf("audit record: %w", err)
	}
	return n, nil
}

// appendSome writes lines until all are written, the file is full and was put aside,
// or something fails.
func (f file) appendSome(lines [][]byte) (n int, err error) {
	h, err := f.open()
	if err != nil {
		return 0, err
	}
	defer func() {
		if cerr := h.Close(); err == nil {
			err = cerr
		}
	}()
	f.waitForOthers(h)
	info, err := h.Stat()
	if err != nil {
		return 0, err
	}
	torn, err := isTorn(h, info.Size())
	if err != nil {
		return 0, err
	}
	size := info.Size()
	for _, line := range lines {
		if size > 0 && size+int64(len(line)) > f.max {
			aside, err := f.putAside(h)
			if err != nil || aside {
				return n, err
			}
		}
		if torn {
			line, torn = append([]byte{'\n'}, line...), false
		}
		if _, err := h.Write(line); err != nil {
			return n, err // what is left of the line is ended by the next write
		}
		size += int64(len(line))
		n++
	}
	return n, nil
}

// waitForOthers takes the lock that goes with h, so that no line that another process is just writing looks torn. Who does not let
// go of it within a second holds nobody up: lines are whole all the same.
func (f file) waitForOthers(h *os.File) {
	for range 1000 {
		if unix.FcntlFlock(h.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK}) == nil {
			return
		}
		<-time.After(time.Millisecond)
	}
}

// open opens the file, and makes it if it is not there. Who runs as root makes it for
// the owner of the directory, for that one has to append to it, and follows
// nothing that this owner could have put in its place.
func (f file) open() (*os.File, error) {
	const flags = os.O_RDWR | os.O_APPEND | syscall.O_NOFOLLOW | syscall.O_NONBLOCK
	h, err := os.OpenFile(f.path, flags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		h, err = os.OpenFile(f.path, flags|os.O_CREATE|os.O_EXCL, fileMode)
		if err == nil {
			if err = own(h, filepath.Dir(f.path)); err != nil {
				return nil, errors.Join(err, h.Close(), os.Remove(f.path))
			}
			return h, nil
		}
		if errors.Is(err, fs.ErrExist) { // another process was quicker
			h, err = os.OpenFile(f.path, flags, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	info, err := h.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is no file", f.path)
	}
	if err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// own gives a new file its mode, whatever the umask, and its owner.
func own(h *os.File, dir string) error {
	if err := h.Chmod(fileMode); err != nil || os.Geteuid() != 0 {
		return err
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	st := info.Sys().(*syscall.Stat_t)
	return h.Chown(int(st.Uid), int(st.Gid))
}

// isTorn reports whether the last line has no end: a crash or a full disk cut it off.
func isTorn(h *os.File, size int64) (bool, error) {
	if size == 0 {
		return false, nil
	}
	var last [1]byte
	if _, err := h.ReadAt(last[:], size-1); err != nil {
		return false, err
	}
	return last[0] != '\n', nil
}

// putAside renames the file, which h is, and those before it; the oldest goes. It
// reports whether h is now one of the old ones. Where another process is just
// doing it, h is written to once more.
func (f file) putAside(h *os.File) (bool, error) {
	// The lock is one that only who may write the file can take, and goes with h.
	err := unix.FcntlFlock(h.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK})
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	mine, err := h.Stat()
	if err != nil {
		return false, err
	}
	there, err := os.Lstat(f.path)
	if errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(mine, there) {
		return true, nil // it was renamed before the lock
	}
	if err != nil {
		return false, err
	}
	for i := oldFiles; i > 1; i-- {
		if err := os.Rename(f.old(i-1), f.old(i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	if err := os.Rename(f.path, f.old(1)); err != nil {
		return false, err
	}
	return true, h.Sync() // only now: until the rename the others write to h
}

func (f file) old(i int) string { return fmt.Sprintf("%s.%d", f.path, i) }

// sync makes what was written outlast a power cut.
func (f file) sync() error {
	h, err := os.OpenFile(f.path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(h.Sync(), h.Close())
}
