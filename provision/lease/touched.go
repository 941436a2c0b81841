package lease

import (
	"context"
	"net/netip"
	"slices"
	"time"
)

// Touched tells of addresses whose record has changed, for whoever looks at the table then. It
// begins with the changes after it was made. An address that changes again before it
// is taken is told once, and a lease that merely goes on for a longer time is not told at all: those are
// most of all by far. It never holds up the table, and what waits is bounded by the number of addresses.
type Touched struct {
	// Gather is how long addresses are gathered after some were told. It is 2 ms; whoever wants another time says so before the first Next.
	Gather time.Duration

	table *Table
	wake  wake
	rest  time.Time // of who calls Next: not before, unless much waits

	// Guarded by the mutex of the table.
	waits map[uint32]uint64 // the number of what waits, by address
	order []touch           // the oldest first; one whose number is not that of waits was dropped
	last  uint64
	ended bool
}

// touch is a change that waits.
type touch struct {
	key uint32
	no  uint64
}

// Touched begins to tell of changes.
func (t *Table) Touched() *Touched {
	f := &Touched{Gather: gather, table: t, wake: newWake(), waits: map[uint32]uint64{}}
	t.mu.Lock()
	defer t.mu.Unlock()
	if f.ended = t.closed; !f.ended {
		t.touched = append(t.touched, f)
	}
	return f
}

func (f *Touched) addLocked(key uint32) {
	if _, ok := f.waits[key]; ok {
		return
	}
	f.last++
	f.waits[key] = f.last
	f.order = append(f.order, touch{key, f.last})
	f.wake.kick()
}

// Drop takes addresses back that wait to be told: whoever calls looks at them by itself, after it.
func (f *Touched) Drop(addrs []netip.Addr) {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	for _, a := range addrs {
		delete(f.waits, ipKey(a)) // order keeps it, and take passes it
	}
	if len(f.order) > 2*len(f.waits) { // what was dropped does not pile up
		f.order = slices.DeleteFunc(f.order, func(x touch) bool { return f.waits[x.key] != x.no })
	}
}

// gather is how long addresses are gathered after some were taken, if they were not too many. A goroutine that is woken for
// each new lease costs as much as the lease.
const gather = 2 * time.Millisecond

// Next waits for addresses and puts as many as fit into buf; it returns how many. The first one is told at once, those that follow
// within Gather are told together. After the last one it
// returns ErrEnded, and the context's error when that ends first. It is called by one goroutine.
func (f *Touched) Next(ctx context.Context, buf []netip.Addr) (int, error) {
	if wait := time.Until(f.rest); wait > 0 {
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(wait):
		}
	}
	n, err := f.wake.next(ctx, len(buf) == 0, func() (int, bool) { return f.take(buf) })
	if n > 0 && n < len(buf) {
		f.rest = time.Now().Add(f.Gather)
	}
	return n, err
}

func (f *Touched) take(buf []netip.Addr) (n int, ended bool) {
	f.table.mu.Lock()
	defer f.table.mu.Unlock()
	done := 0
	for ; n < len(buf) && done < len(f.order); done++ {
		if x := f.order[done]; f.waits[x.key] == x.no { // else it was dropped
			buf[n] = addrOf(x.key)
			n++
			delete(f.waits, x.key)
		}
	}
	if f.order = f.order[done:]; len(f.order) == 0 && cap(f.order) > 1024 {
		f.order, f.waits = nil, map[uint32]uint64{} // they may have been large
	}
	return n, f.ended && len(f.order) == 0
}

// goesOn reports whether after differs from r, which was live then, by nothing but a later end and what its client said of itself.
func (r *Record) goesOn(after *Record) bool {
	return r.State == StateBound && after.State == StateBound && after.Renewed.Before(r.Expires) && !after.Expires.Before(r.Expires) &&
		r.MAC == after.MAC && r.Subscriber == after.Subscriber && r.Pool == after.Pool && r.Key == after.Key &&
		r.Ifindex == after.Ifindex && r.Interface == after.Interface && r.GIAddr == after.GIAddr && r.Device == after.Device && r.Port == after.Port
}
