package agent

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// teardown is a stack of what was made and how to let it go. A step is pushed on
// the line after its thing is made, so that whatever fails later, or never
// begins, leaves nothing open.
type teardown struct {
	steps []step
	once  sync.Once
	err   error // of the one run
}

type step struct {
	name string
	hint string // what to look at when it hangs
	undo func() error
}

func (t *teardown) push(name string, undo func() error) {
	t.steps = append(t.steps, step{name: name, undo: undo})
}

// pushDisk is push for what waits for the disk.
func (t *teardown) pushDisk(name string, undo func() error) {
	t.steps = append(t.steps, step{name: name, hint: ": does the disk hang?", undo: undo})
}

// run takes every step, newest first, within limit. A step that fails skips
// none; one that hangs is left behind, and some time is kept for each that
// follows. The error names them all. A second run does nothing and returns the
// error of the first.
func (t *teardown) run(limit time.Duration) error {
	t.once.Do(func() {
		var errs []error
		deadline := time.Now().Add(limit)
		reserve := limit / time.Duration(2*len(t.steps)+1) // for each of those that follow
		for i := len(t.steps) - 1; i >= 0; i-- {
			errs = append(errs, t.steps[i].take(max(reserve, time.Until(deadline)-time.Duration(i)*reserve)))
		}
		t.err = errors.Join(errs...)
	})
	return t.err
}

// take waits for the step no longer than limit.
func (s step) take(limit time.Duration) error {
	done := make(chan error, 1)
	go func() { done <- s.undo() }()
	late := time.NewTimer(limit)
	defer late.Stop()
	select {
	case err := <-done:
		if err != nil {
			return fmt.Errorf("%s: %w", s.name, err)
		}
		return nil
	case <-late.C:
		return fmt.Errorf("%s: not closed within %s%s", s.name, limit.Round(time.Millisecond), s.hint)
	}
}
