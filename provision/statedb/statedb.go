// Package statedb reads state.db, the database in which versions before the log
// kept leases and MAC reports. The library behind it may panic, loop or end the
// process over a damaged file, so a child process of the same program reads it,
// which is killed when it gets nowhere.
package statedb

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
	"golang.org/x/sys/unix"
)

// Item is one entry of the database.
type Item struct {
	Bucket     string
	Key, Value []byte
}

// ErrInUse says that another process has the file open.
var ErrInUse = errors.New("another process has the file open")

// ErrNoChild says that no child process could be started: nobody has looked at the file.
var ErrNoChild = errors.New("no process could be started to read it")

// ErrDisk says that the disk gives so little of the file that it may well give all of it another time.
var ErrDisk = errors.New("the disk does not give it")

var errNoFile = errors.New("it is not a regular file")

const (
	childName = "dump-state-db"
	// inUseCode is the child's exit code for ErrInUse.
	inUseCode = 75
	// mostTime bounds the child. One that said nothing for all of silence, and worked for a while of it, goes in circles, and one that
	// has the file and slept all the time hangs. One that waits, for the disk or for its turn on a busy machine, does neither.
	mostTime, silence, atWork = 30 * time.Second, 3 * time.Second, time.Second
	lockWait                  = 2 * time.Second
	// The longest key and value that the library takes.
	maxKey, maxValue = 1 << 15, 1 << 24
	headLen          = 2 + 2 + 4
)

// ready says that Child was called: a process of this program that is started as a child does its work, and nothing else.
var ready bool

// Child does the work of the child process and ends it, if this process is one. It is called first thing in main.
func Child() {
	ready = true
	if len(os.Args) != 3 || os.Args[1] != childName {
		return
	}
	switch err := dump(os.Args[2], os.Stdout); {
	case errors.Is(err, bolterrors.ErrTimeout):
		os.Exit(inUseCode)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sign tells the parent that the file is open: there is no bucket without a name.
func sign(w *bufio.Writer) error {
	_, err := w.Write(make([]byte, headLen))
	return errors.Join(err, w.Flush())
}

// dump writes every entry: the length of the bucket's name, of the key (2 bytes each) and of the value (4 bytes), and then those.
// Opened like that the library does not read its list of free pages.
func dump(path string, to io.Writer) error {
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(to, 1<<16)
	if err := sign(w); err != nil {
		return errors.Join(err, db.Close())
	}
	err = db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			var last []byte
			err := b.ForEach(func(k, v []byte) error {
				if last != nil && bytes.Compare(k, last) <= 0 {
					return fmt.Errorf("bucket %s goes in circles at key %x", name, k)
				}
				last = k
				head := binary.BigEndian.AppendUint16(nil, uint16(len(name)))
				head = binary.BigEndian.AppendUint16(head, uint16(len(k)))
				head = binary.BigEndian.AppendUint32(head, uint32(len(v)))
				for _, part := range [...][]byte{head, name, k, v} {
					if _, err := w.Write(part); err != nil {
						return err
					}
				}
				return nil
			})
			return errors.Join(err, w.Flush()) // what was read is not lost if the next bucket ends the process
		})
	})
	return errors.Join(err, w.Flush(), db.Close())
}

// Open opens the file at path for reading. It waits for nobody, as who opens a pipe does: what is no regular file is an error.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(&fs.PathError{Op: "open", Path: path, Err: errNoFile}, err, f.Close())
	}
	return f, nil
}

// Read has a child process read the file at path and calls each with every
// entry. After an error each may have been called for some of them: the file is damaged, or ErrInUse, or ErrNoChild.
func Read(ctx context.Context, path string, each func(Item)) error {
	if !ready {
		panic("statedb: Read without Child in main")
	}
	ctx, cancel := context.WithTimeoutCause(ctx, mostTime, fmt.Errorf("it could not be read within %v", mostTime))
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	cmd := exec.CommandContext(ctx, "/proc/self/exe", childName, path) // also when an upgrade has replaced the file meanwhile
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = time.Second
	var complaint tail
	cmd.Stderr = &complaint
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoChild, err)
	}
	var said atomic.Int64
	go watch(ctx, &said, func() (vitals, error) { return vitalsOf(cmd.Process.Pid) }, stop)
	rerr := items(bufio.NewReaderSize(out, 1<<16), func(i Item) {
		said.Add(1)
		if i.Bucket != "" {
			each(i)
		}
	})
	err = cmd.Wait()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &exit) && exit.ExitCode() == inUseCode:
		return ErrInUse
	case err != nil:
		return fmt.Errorf("%w: %s", err, complaint.first())
	}
	return rerr
}

// vitals is what a process does.
type vitals struct {
	worked time.Duration // since it began
	asleep bool          // it waits for neither a processor nor a disk
}

// watch stops a child that gets nowhere: said counts what it told, of which the first is that it has the file.
func watch(ctx context.Context, said *atomic.Int64, look func() (vitals, error), stop context.CancelCauseFunc) {
	const looks = 3 // in a silence
	tick := time.NewTicker(silence / looks)
	defer tick.Stop()
	var words int64
	var worked time.Duration // when it told the newest of them
	silent, slept := 0, 0
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		v, err := look()
		if err != nil {
			return // it has ended
		}
		if n := said.Load(); n != words {
			words, worked, silent, slept = n, v.worked, 0, 0
			continue
		}
		if silent++; !v.asleep {
			slept = 0
		} else if words > 0 {
			slept++
		}
		switch {
		case silent >= looks && v.worked-worked >= atWork:
			stop(fmt.Errorf("reading it went in circles for %v", silence))
			return
		case slept >= looks:
			stop(fmt.Errorf("reading it hung for %v", silence))
			return
		}
	}
}

// vitalsOf looks at a process: at its own clock (clock_getcpuclockid(3)), and at the states of its threads (proc_pid_stat(5)).
func vitalsOf(pid int) (vitals, error) {
	const scheduled = 2 // CPUCLOCK_SCHED
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|scheduled, &t); err != nil {
		return vitals{}, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	asleep := err == nil && len(threads) > 0
	for _, path := range threads {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		_, state, _ := bytes.Cut(b[bytes.LastIndexByte(b, ')')+1:], []byte{' '})
		asleep = asleep && len(state) > 0 && state[0] == 'S'
	}
	return vitals{time.Duration(t.Nano()), asleep}, err
}

// items reads what dump wrote.
func items(r io.Reader, each func(Item)) error {
	for {
		var head [headLen]byte
		if _, err := io.ReadFull(r, head[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name, key, value := int(binary.BigEndian.Uint16(head[:])), int(binary.BigEndian.Uint16(head[2:])), int(binary.BigEndian.Uint32(head[4:]))
		if key > maxKey || value > maxValue {
			return fmt.Errorf("an entry with a key of %d and a value of %d bytes", key, value)
		}
		body := make([]byte, name+key+value)
		if _, err := io.ReadFull(r, body); err != nil {
			return err
		}
		each(Item{Bucket: string(body[:name]), Key: body[name : name+key], Value: body[name+key:]})
	}
}

// tail keeps the beginning of what a process complains of: the rest is a trace.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p[:min(len(p), 500-len(t.b))]...)
	return len(p), nil
}

func (t *tail) first() string {
	line, _, _ := strings.Cut(string(t.b), "\n")
	return line
}
