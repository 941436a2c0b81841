package dhcpd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
)

// Limit bounds the packets of one sender. Rate 0: no limit.
type Limit struct {
	Rate  float64 `cfg:"rate" min:"0" max:"1000000"`  // packets a second, in the long run
	Burst int     `cfg:"burst" min:"1" max:"1000000"` // packets at once after a pause; at least 1
}

// Check reports what is no limit, as key: reason.
func (l *Limit) Check() error {
	switch {
	case l.Rate == 0:
		return nil
	case !(l.Rate >= 0.1 && l.Rate <= maxLimit): // also not a number
		return fmt.Errorf("rate: %g: want 0 (no limit) or at least 0.1 packets a second", l.Rate)
	case l.Burst < 1 || l.Burst > maxLimit:
		return fmt.Errorf("burst: %d is outside 1 to %d", l.Burst, maxLimit)
	}
	return nil
}

// maxLimit bounds what a limit counts.
const maxLimit = 1_000_000

// Limits bound what the server takes in. A packet over a limit is shed right
// after it was parsed and takes nothing from the other limits, so that one who
// floods uses up only the own share.
type Limits struct {
	// One MAC.
	Client Limit `cfg:"client" default:"{rate: 5, burst: 20}"`

	// One port: one value of option 82 behind one relay, or one interface whose
	// clients are heard directly.
	Port Limit `cfg:"port" default:"{rate: 200, burst: 2000}"`

	// One relay (giaddr), or one interface for what comes without.
	Relay Limit `cfg:"relay" default:"{rate: 5000, burst: 20000}"`
}

// limit is a Limit in nanoseconds: what one packet costs, and what may be owed.
type limit struct{ cost, owed int64 }

func compileLimit(l Limit) (limit, error) {
	if err := l.Check(); err != nil || l.Rate == 0 {
		return limit{}, err
	}
	cost := int64(float64(time.Second) / l.Rate)
	return limit{cost: cost, owed: cost * int64(l.Burst)}, nil
}

// limits are Limits made ready.
type limits struct{ client, port, relay limit }

func (s *limits) compile(l Limits) error {
	var errs []error
	for _, x := range []struct {
		name string
		from Limit
		to   *limit
	}{{"client", l.Client, &s.client}, {"port", l.Port, &s.port}, {"relay", l.Relay, &s.relay}} {
		var err error
		if *x.to, err = compileLimit(x.from); err != nil {
			errs = append(errs, fmt.Errorf("limit of a %s: %w", x.name, err))
		}
	}
	return errors.Join(errs...)
}

// bucket is the token bucket of one key, as the time at which it is full again
// (the generic cell rate algorithm). An empty slot is a full bucket.
type bucket struct {
	key  uint64
	full int64 // nanoseconds of Unix time
}

// ways is how many buckets share a place: a cache line.
const ways = 4

// buckets is a table of fixed size. Where it is full the bucket that has most
// left is forgotten, which is in favour of its sender: whoever makes up keys
// can make the table forget, not make it refuse others.
type buckets struct {
	sets [][ways]bucket
	mask uint64
}

func newBuckets(bits int) buckets {
	return buckets{sets: make([][ways]bucket, 1<<bits), mask: 1<<bits - 1}
}

// look finds the bucket of key; nil is a full one. ok: there is enough for one more packet.
func (b *buckets) look(key uint64, now int64, l limit) (slot *bucket, ok bool) {
	set := &b.sets[key&b.mask]
	for i := range set {
		if set[i].key != key {
			continue
		}
		slot = &set[i]
		if slot.full-now > l.owed {
			slot.full = now // the clock was set back, or the limits were changed
		}
		return slot, slot.full-now+l.cost <= l.owed
	}
	return nil, true
}

// take takes one packet out of what look found.
func (b *buckets) take(slot *bucket, key uint64, now int64, l limit) {
	if slot == nil {
		set := &b.sets[key&b.mask]
		slot = &set[0]
		for i := range set[1:] {
			if set[1+i].full < slot.full {
				slot = &set[1+i]
			}
		}
		*slot = bucket{key: key}
	}
	slot.full = max(slot.full, now) + l.cost
}

// limiter holds the buckets. It belongs to one goroutine, allocates nothing
// after newLimiter and its memory, 1.6 MiB, does not depend on who sends.
type limiter struct {
	seed   maphash.Seed // nobody outside can choose keys that meet
	client buckets
	port   buckets
	relay  buckets
	told   [64]int64 // by key: the second in which a shed packet was last told about
	buf    []byte

	noiseAt int64 // second of noiseN
	noiseN  int   // packets of noise in it
}

func newLimiter() *limiter {
	return &limiter{
		seed: maphash.MakeSeed(), client: newBuckets(14), port: newBuckets(13), relay: newBuckets(8),
		buf: make([]byte, 0, 2048),
	}
}

// check returns outcome.Limited... for a packet that is too much, else 0. repeat:
// the like was told within this second already.
func (l *limiter) check(now time.Time, r *v4.Request, set *limits) (o outcome.Outcome, repeat bool) {
	if *set == (limits{}) {
		return 0, false
	}
	t := now.UnixNano()
	var keys [3]uint64
	var slots [3]*bucket
	tables := [3]*buckets{&l.client, &l.port, &l.relay}
	bounds := [3]limit{set.client, set.port, set.relay}
	for i := range tables {
		if bounds[i].cost == 0 {
			continue
		}
		if keys[i] = l.key(i, r); keys[i] == 0 {
			continue
		}
		var ok bool
		if slots[i], ok = tables[i].look(keys[i], t, bounds[i]); !ok {
			told := &l.told[keys[i]>>32%uint64(len(l.told))]
			second := now.Unix()
			repeat, *told = *told == second, second
			return [3]outcome.Outcome{outcome.LimitedClient, outcome.LimitedPort, outcome.LimitedRelay}[i], repeat
		}
	}
	for i, b := range tables {
		if keys[i] != 0 {
			b.take(slots[i], keys[i], t, bounds[i])
		}
	}
	return 0, false
}

// noiseTold is how many packets a second are remembered of those that say
// nothing of a client: unreadable ones, and those of interfaces that are off.
const noiseTold = 20

// noise reports whether such a packet is one too many to be remembered.
func (l *limiter) noise(now time.Time) (repeat bool) {
	if second := now.Unix(); second != l.noiseAt {
		l.noiseAt, l.noiseN = second, 0
	}
	l.noiseN++
	return l.noiseN > noiseTold
}

// key names the client (0), port (1) or relay (2) of a packet; 0: it has none.
func (l *limiter) key(kind int, r *v4.Request) uint64 {
	if kind != 2 && r.P.Type() == wire.LeaseQuery {
		return 0 // an access node asks about many clients
	}
	b := l.buf[:0]
	gi := r.P.GIAddr()
	switch {
	case kind == 0:
		mac, ok := r.P.MAC()
		if !ok {
			return 0
		}
		b = append(b, mac[:]...)
	case gi.IsValid():
		a := gi.As4()
		b = append(b, a[:]...)
	default:
		b = binary.NativeEndian.AppendUint64(b, uint64(r.Ifindex))
	}
	if kind == 1 {
		switch {
		case r.P.HasOption82():
			b = append(b, r.P.Option82()...)
		case gi.IsValid() || r.Local.IsValid():
			return 0 // relayed without option 82, or past the relay: it tells no port
		}
	}
	l.buf = b
	return maphash.Bytes(l.seed, b) | 1
}
