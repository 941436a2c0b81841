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
	once sync.Once
	err  error // of the one run

	mu    sync.Mutex // guards the fields below: a start that hangs may go on while it is given up
	steps []step
	over  bool
}

type step struct {
	name string
	hint string // what to look at when it hangs
	undo func() error
}

func (t *teardown) push(name string, undo func() error) {
	t.add(step{name: name, undo: undo})
}

// pushDisk is push for what waits for the disk.
func (t *teardown) pushDisk(name string, undo func() error) {
	t.add(step{name: name, hint: ": does the disk hang?", undo: undo})
}

// add undoes at once what comes after the run.
func (t *teardown) add(s step) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		go s.undo() //nolint:errcheck // nobody is there any more to hear of it
		return
	}
	t.steps = append(t.steps, s)
}

// end returns the steps to take, the last time.
func (t *teardown) end() []step {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	return t.steps
}

// run takes every step, newest first, within limit. A step that fails skips
// none; one that hangs is left behind, and some time is kept for each that
// follows. The error names them all. A second run does nothing and returns the
// error of the first.
func (t *teardown) run(limit time.Duration) error {
	t.once.Do(func() {
		var errs []error
		deadline := time.Now().Add(limit)
		steps := t.end()
		reserve := limit / time.Duration(2*len(steps)+1) // for each of those that follow
		for i := len(steps) - 1; i >= 0; i-- {
			errs = append(errs, steps[i].take(max(reserve, time.Until(deadline)-time.Duration(i)*reserve)))
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
