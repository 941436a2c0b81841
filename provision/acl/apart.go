package acl

import (
	"context"
	"errors"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
)

// maxApart bounds the batches into which one that was refused is taken apart. To find
// one element among 100,000 takes some 35.
const maxApart = 256

// refuses tells the failures that are the answer to an element. All others are to the
// batch, however small it is.
func refuses(err error) bool {
	for _, errno := range []unix.Errno{
		unix.EEXIST, // it overlaps another
		unix.EINVAL,
		unix.ENFILE, // the set is full
		unix.ERANGE, unix.EOVERFLOW, unix.EBUSY, unix.EOPNOTSUPP,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// errUntried says that a batch was not taken apart to the end.
var errUntried = errors.New("not tried by itself, for the kernel refuses too much")

// unit is what is applied together or not at all: an element; all that changes for an
// address, a subnet, a MAC or an interface in the sets that block, for who is to be paused instead of stopped is else
// open if the kernel takes the one and not the other; and of intervals those that give
// way to one another, as the kernel may take half of one that overlaps another.
type unit []access.Change

// units takes a batch apart: what lets through is added first and removed last.
func (b batch) units() []unit {
	var out []unit
	at := map[string]int{}                             // of who is blocked
	for _, c := range access.Plan(b.adds, b.removes) { // each of adds is an addition, each of removes a removal
		switch {
		case c.Set.Blocks():
			who := c.Element.String()
			known, ok := at[who]
			if !ok {
				known = len(out)
				at[who], out = known, append(out, nil)
			}
			out[known] = append(out[known], c)
		case isInterval(c.Set) && c.Op == provision.OpRemove:
			u := unit{c}
			for i, x := range out {
				if slices.ContainsFunc(x, func(x access.Change) bool { return overlap(c, x) }) {
					u, out[i] = append(u, x...), nil
				}
			}
			out = append(out, u)
		default:
			out = append(out, unit{c})
		}
	}
	return slices.DeleteFunc(out, func(u unit) bool { return u == nil })
}

// overlap reports whether two changes are of intervals of one set that overlap.
func overlap(a, b access.Change) bool {
	return a.Set == b.Set && a.Fields().Prefix.Overlaps(b.Fields().Prefix)
}

// applyApartLocked applies a batch that the kernel has refused, but for the elements for
// which it did. The error is one of the batch, after which nothing is known.
func (t *Table) applyApartLocked(ctx context.Context, b batch) ([]access.RefusedChange, error) {
	a := apart{t: t, ctx: ctx, left: maxApart}
	a.refusedOf(t.suspectsLast(b.units()))
	t.stale = t.stale || a.err != nil
	before := t.suspects
	t.suspects = map[access.Change]bool{}
	for _, r := range a.refused {
		if before[r.Change] || !errors.Is(r.Err, errUntried) {
			t.suspects[r.Change] = true
		}
	}
	return a.refused, a.err
}

// suspectsLast returns the units in their order, but those behind all others that the kernel
// has refused: what was not tried then, for there were so many, is tried now.
func (t *Table) suspectsLast(units []unit) []unit {
	var first, last []unit
	for _, u := range units {
		if slices.ContainsFunc(u, func(c access.Change) bool { return t.suspects[c] }) {
			last = append(last, u)
		} else {
			first = append(first, u)
		}
	}
	return append(first, last...)
}

// apart is a batch on its way into pieces.
type apart struct {
	t       *Table
	ctx     context.Context
	left    int // batches that may still be sent
	refused []access.RefusedChange
	err     error // ends it
}

// try applies units as one batch, and the halves of what is refused.
func (a *apart) try(units []unit) {
	switch {
	case len(units) == 0 || a.err != nil:
		return
	case a.ctx.Err() != nil:
		a.err = a.ctx.Err()
		return
	case a.left == 0:
		a.refuse(units, errUntried)
		return
	}
	a.left--
	b, err := newBatch(slices.Concat(units...))
	if err == nil {
		err = a.t.commitLocked(a.ctx, b, 0)
	}
	switch {
	case err == nil:
	case !refuses(err) && !errors.Is(err, unix.ENOENT):
		a.err = err
	case len(units) > 1:
		a.refusedOf(units)
	default:
		a.refuse(units, err)
	}
}

// refusedOf tries the halves of units that were refused together.
func (a *apart) refusedOf(units []unit) {
	if len(units) == 1 {
		a.try(units)
		return
	}
	half := len(units) / 2
	a.try(units[:half])
	a.try(units[half:])
}

// refuse notes that the kernel does not take units.
func (a *apart) refuse(units []unit, err error) {
	a.t.stale = a.t.stale || errors.Is(err, unix.ENOENT) // somebody else has removed it
	for _, u := range units {
		for _, c := range u {
			a.refused = append(a.refused, access.RefusedChange{Change: c, Err: err})
		}
	}
}
