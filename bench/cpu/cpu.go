// Package cpu tells what a process has used of processors, and ties it to one.
package cpu

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Used returns how long a process has run so far, in its own code and in the
// kernel's for it, all threads together, those that ended too. The kernel keeps
// that in nanoseconds; /proc/PID/stat has hundredths of a second.
func Used(pid int) (time.Duration, error) {
	var ts unix.Timespec
	clock := int32(^pid<<3 | 2) // clock_getcpuclockid(3): the clock of a process, by the scheduler
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("processor time of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Pin ties all threads of a process to the processors, and with them those that they start; 0 is this process.
func Pin(pid int, processors ...int) error {
	var set unix.CPUSet
	for _, c := range processors {
		set.Set(c)
	}
	return eachThread(pid, func(tid int) error { return unix.SchedSetaffinity(tid, &set) })
}

// Allowed returns the processors that this thread may run on.
func Allowed() ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("processors of this thread: %w", err)
	}
	var all []int
	for c := range len(set) * 64 {
		if set.IsSet(c) {
			all = append(all, c)
		}
	}
	return all, nil
}

// eachThread calls f for the threads of a process until two readings of them are
// alike: a thread that is not tied yet may start another one meanwhile.
func eachThread(pid int, f func(tid int) error) error {
	dir := "/proc/self/task"
	if pid != 0 {
		dir = "/proc/" + strconv.Itoa(pid) + "/task"
	}
	for before := ""; ; {
		tasks, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("threads: %w", err)
		}
		names := make([]string, len(tasks))
		for i, t := range tasks {
			names[i] = t.Name()
			tid, err := strconv.Atoi(t.Name())
			if err != nil {
				continue
			}
			if err := f(tid); err != nil && !errors.Is(err, unix.ESRCH) { // it has ended
				return fmt.Errorf("thread %d: %w", tid, err)
			}
		}
		now := strings.Join(names, " ")
		if now == before {
			return nil
		}
		before = now
	}
}

// Written returns how many bytes a process has caused to be written to disks so far.
func Written(pid int) (uint64, error) {
	b, err := fs.ReadFile(os.DirFS("/proc"), strconv.Itoa(pid)+"/io")
	if err != nil {
		return 0, err
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(l, "write_bytes: "); ok {
			return strconv.ParseUint(strings.TrimSpace(v), 10, 64)
		}
	}
	return 0, fmt.Errorf("process %d: no write_bytes", pid)
}
