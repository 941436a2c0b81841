package access

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/usher-agent/usher/provision"
)

// RefusedError is a Kernel's answer to changes of which all hold but some. Those it
// refuses by themselves, or together with others of the same address.
type RefusedError struct {
	Changes []RefusedChange // never empty
}

// RefusedChange is a change that the kernel refuses.
type RefusedChange struct {
	Change
	Err error
}

// Error implements error.
func (e *RefusedError) Error() string {
	c := e.Changes[0]
	return fmt.Sprintf("the kernel refuses %d changes, the first: %s %s %s: %v", len(e.Changes), c.Op, c.Set, c.Element, c.Err)
}

// Unwrap returns the first one's reason.
func (e *RefusedError) Unwrap() error { return e.Changes[0].Err }

// Refused is an element that the kernel refuses to take or to let go. It is tried
// again by itself, so that nobody else waits for it.
type Refused struct {
	Op      string    `json:"op"` // add or remove
	Set     string    `json:"set"`
	Element string    `json:"element"`
	Error   string    `json:"error"`
	Since   time.Time `json:"since"`
	Tries   int       `json:"tries"`
}

// Text says it in a sentence.
func (r Refused) Text() string {
	return fmt.Sprintf("the kernel refuses to %s %s %s: %s", r.Op, r.Set, r.Element, r.Error)
}

// maxRefused bounds the list of them in the status.
const maxRefused = 20

// refusals are what the kernel refuses now. The goroutine of Run owns them.
type refusals struct {
	all   map[Element]Refused
	ops   map[Element]provision.Op
	tries int       // since one was new or taken
	retry time.Time // of all of them
}

// note remembers what was refused.
func (r *refusals) note(list []RefusedChange, now time.Time) {
	if r.all == nil {
		r.all, r.ops = map[Element]Refused{}, map[Element]provision.Op{}
	}
	for _, c := range list {
		x, known := r.all[c.Element]
		if !known || r.ops[c.Element] != c.Op {
			x, r.tries = Refused{Op: c.Op.String(), Set: c.Set.String(), Element: c.Element.String(), Since: now}, 0
		}
		x.Error = c.Err.Error()
		x.Tries++
		r.all[c.Element], r.ops[c.Element] = x, c.Op
	}
	r.retry = now.Add(min(firstRetry<<min(r.tries, 20), maxRetry))
	r.tries++
}

// due reports whether they are to be tried again.
func (r *refusals) due(now time.Time) bool { return len(r.all) > 0 && !now.Before(r.retry) }

// apart takes out of the changes those that were refused before, and forgets what is
// not to be changed any more.
func (r *refusals) apart(changes []Change) (fresh, again []Change) {
	if len(r.all) == 0 {
		return changes, nil
	}
	still := map[Element]bool{}
	for _, c := range changes {
		if op, ok := r.ops[c.Element]; ok && op == c.Op {
			again, still[c.Element] = append(again, c), true
		} else {
			fresh = append(fresh, c)
		}
	}
	for e := range r.all {
		if !still[e] {
			r.forget(e)
		}
	}
	return fresh, again
}

func (r *refusals) forget(e Element) {
	delete(r.all, e)
	delete(r.ops, e)
}

// taken forgets those of the changes that were not refused again.
func (r *refusals) taken(changes []Change, refused []RefusedChange) {
	still := make(map[Element]bool, len(refused))
	for _, x := range refused {
		still[x.Element] = true
	}
	for _, c := range changes {
		if !still[c.Element] {
			r.forget(c.Element)
			r.tries = 0
		}
	}
}

// without returns what the kernel has where it would have all of an ACL but for them.
func (r *refusals) without(a ACL) ACL {
	if len(r.all) == 0 {
		return a
	}
	var undo []Change
	for e, op := range r.ops {
		if op == provision.OpAdd {
			op = provision.OpRemove
		} else {
			op = provision.OpAdd
		}
		undo = append(undo, Change{op, e})
	}
	return a.Apply(undo)
}

// adjust returns the number of elements in the kernel where it would have n but for them.
func (r *refusals) adjust(n SetCounts) SetCounts {
	for e, op := range r.ops {
		if op == provision.OpAdd {
			n[e.Set]--
		} else {
			n[e.Set]++
		}
	}
	return n
}

// list returns the first of them, by set and element.
func (r *refusals) list() []Refused {
	keys := slices.SortedFunc(maps.Keys(r.all), func(a, b Element) int {
		if a.Set != b.Set {
			return int(a.Set) - int(b.Set)
		}
		return compare(a.Key, b.Key, a.Set.lead())
	})
	var out []Refused
	for _, e := range keys[:min(len(keys), maxRefused)] {
		out = append(out, r.all[e])
	}
	return out
}
