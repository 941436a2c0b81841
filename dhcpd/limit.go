package dhcpd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/v4"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
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
// after it was parsed and judged, and takes nothing from the other limits, so that one who
// floods uses up only the own share. Whose share it is follows from who vouches
// for the packet, see limiter.keys.
type Limits struct {
	// One MAC on one port; without a port, one MAC behind one relay of relays; else one MAC
	// and sender's address on one interface.
	Client Limit `cfg:"client" default:"{rate: 5, burst: 20}"`

	// One port: one option 82 of one relay, or of a switch on one interface; or one
	// interface that is a VLAN's, or whose clients are heard directly.
	Port Limit `cfg:"port" default:"{rate: 200, burst: 2000}"`

	// One relay of relays, by the address that it sends from, or one node of leasequery.from; one
	// interface for all that comes in on it from others: clients, and relays that are not listed.
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

// The limits.
const (
	ofClient = iota
	ofPort
	ofRelay
	limitKinds
)

// limits are Limits made ready.
type limits [limitKinds]limit

func (s *limits) compile(l Limits) error {
	var errs [limitKinds]error
	for i, from := range [limitKinds]Limit{l.Client, l.Port, l.Relay} {
		var err error
		if s[i], err = compileLimit(from); err != nil {
			errs[i] = fmt.Errorf("limit of a %s: %w", [limitKinds]string{"client", "port", "relay"}[i], err)
		}
	}
	return errors.Join(errs[:]...)
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
	seed    maphash.Seed // nobody outside can choose keys that meet
	secret  [2]uint64    // made of seed
	buckets [limitKinds]buckets
	told    [limitKinds][64]int64 // by key: the second in which a packet that the limit sheds was last told about
	refused []refused             // by outcome
}

func newLimiter() *limiter {
	seed := maphash.MakeSeed()
	return &limiter{
		seed: seed, secret: [2]uint64{maphash.String(seed, "one"), maphash.String(seed, "other")},
		buckets: [limitKinds]buckets{newBuckets(14), newBuckets(13), newBuckets(8)}, refused: make([]refused, len(outcome.All())+1),
	}
}

// check returns outcome.Limited... for a packet that is too much, else 0. The packet was judged
// before, and not refused. repeat: the like was told within this second already.
func (l *limiter) check(now time.Time, r *v4.Request, set *settings) (o outcome.Outcome, repeat bool) {
	if set.limits == (limits{}) {
		return 0, false
	}
	t := now.UnixNano()
	var slots [limitKinds]*bucket
	keys := l.keys(r, set.config)
	for i, key := range keys {
		if set.limits[i].cost == 0 || key == 0 {
			continue
		}
		var ok bool
		if slots[i], ok = l.buckets[i].look(key, t, set.limits[i]); !ok {
			told := &l.told[i][key>>32%uint64(len(l.told[i]))]
			second := now.Unix()
			repeat, *told = *told == second, second
			return [limitKinds]outcome.Outcome{outcome.LimitedClient, outcome.LimitedPort, outcome.LimitedRelay}[i], repeat
		}
	}
	for i, key := range keys {
		if set.limits[i].cost != 0 && key != 0 {
			l.buckets[i].take(slots[i], key, t, set.limits[i])
		}
	}
	return 0, false
}

// node stands in a key where a packet's voucher else is: leasequery.from does.
const node v4.Voucher = 0xff

// keys names a packet's bucket of each limit; 0: it has none.
//
// Each key has the interface, and who vouches: a packet on another interface, of
// another relay, or for which somebody else vouches meets no bucket of it. What a
// sender may write as it likes only divides what is the interface's anyway:
// its address, giaddr and option 82 where no list names the relay, a client's MAC.
//
// A listed relay is known by its source and not by giaddr. Both are listed, but giaddr may be
// a client's word: a relay leaves one alone that a client wrote (RFC 1542 section 4.1.1), and sends from
// its own address. For the same reason a port has both in its key.
func (l *limiter) keys(r *v4.Request, cfg *v4.Config) (keys [limitKinds]uint64) {
	p, by := &r.P, r.Trust.By
	gi, from := p.GIAddr(), p.From.Addr().Unmap()
	if !from.IsValid() {
		from = gi
	}
	on := uint64(r.Ifindex) << 32
	if query := p.Type() == wire.LeaseQuery; query && cfg.MayQuery(from) {
		keys[ofRelay] = l.key(ofRelay, node, on|word(from), 0)
		return keys
	} else if !query && by == v4.VoucherRelay {
		keys[ofRelay] = l.key(ofRelay, by, on|word(from), 0)
	} else if keys[ofRelay] = l.key(ofRelay, 0, on, 0); query { // an access node asks about many clients
		return keys
	}

	if by == v4.VoucherAnySwitch && p.VLAN() != 0 {
		by = v4.VoucherVLAN // the interface is the better witness
	}
	isLine := by == v4.VoucherVLAN
	at := on
	if gi.IsValid() {
		at |= word(from)
	}
	port := l.key(ofPort, by, at, word(gi))
	if p.HasOption82() && !isLine {
		isLine, port = true, l.port(port, p)
	}
	if isLine || !gi.IsValid() && !r.Local.IsValid() { // past the relay: it tells no port
		keys[ofPort] = port
	}
	if mac, ok := p.MAC(); ok {
		if !isLine {
			port = l.mix(port, word(from))
		}
		keys[ofClient] = l.mix(port, number(mac))
	}
	return keys
}

// port makes a port's key of its relay's or interface's and option 82: of the sub-options that profiles read.
// Others may change from packet to packet of the same port, as flags (RFC 5010) and
// authentication (RFC 4030) do; the whole payload stands for a port that is
// named by others alone. What is refused for its option 82, twice or
// broken, names none: a relay that leaves a client's beside its own would else
// lend the client any port. It is all one port.
func (l *limiter) port(key uint64, p *line.Packet) uint64 {
	o := &p.Relay
	switch {
	case p.RelayInfoCount() > 1 || p.RelayErr != nil || o.Twice:
		return l.mix(key, 0)
	case len(o.CircuitID)+len(o.RemoteID)+len(o.RelaySubscriberID) == 0:
		return l.mix(key, maphash.Bytes(l.seed, p.Option82()))
	}
	key = l.mix(key, maphash.Bytes(l.seed, o.CircuitID))
	if mac, _ := p.MAC(); !o.RemoteIsClient(mac) { // the client's own word, else, makes it as many ports as it likes
		key = l.mix(key, maphash.Bytes(l.seed, o.RemoteID))
	}
	if len(o.RelaySubscriberID) > 0 {
		key = l.mix(key, maphash.Bytes(l.seed, o.RelaySubscriberID))
	}
	return key
}

// key begins a key: at is an interface's index, times 1<<32, and an address; via is an address.
func (l *limiter) key(kind uint64, by v4.Voucher, at, via uint64) uint64 {
	return l.mix(at, via<<16|kind<<8|uint64(by))
}

// mix makes a number that is not 0 of two, by the step of wyhash: one multiplication with secrets, where
// maphash over fields put together for it takes three times as long.
func (l *limiter) mix(a, b uint64) uint64 {
	hi, lo := bits.Mul64(a^l.secret[0], b^l.secret[1])
	return max(hi^lo, 1)
}

// word makes a number of an address; one that is not IPv4 is 0.
func word(a netip.Addr) uint64 {
	if !a.Is4() {
		return 0
	}
	four := a.As4()
	return uint64(binary.BigEndian.Uint32(four[:]))
}

// number makes one of a MAC.
func number(mac provision.MAC) uint64 {
	return uint64(mac[0])<<40 | uint64(mac[1])<<32 | uint64(mac[2])<<24 | uint64(mac[3])<<16 | uint64(mac[4])<<8 | uint64(mac[5])
}

// How many packets a second are remembered of those that are refused for one reason before they are looked
// at: in all, on one interface, and of one sender.
const (
	refusedTold   = 16
	refusedToldOn = 8
	refusedToldOf = 4
)

// refused are the packets that were told of in a second, all refused for one reason.
type refused struct {
	second int64
	n      int
	told   [refusedTold]struct {
		sender  uint64
		ifindex int
	}
}

// refuse reports whether a packet that is refused for reason o before it is looked at is
// one too many to be remembered. No flood hides another reason or another sender, and one with
// made-up addresses nobody on another interface.
func (l *limiter) refuse(now time.Time, o outcome.Outcome, r *v4.Request) (repeat bool) {
	t := &l.refused[o]
	if second := now.Unix(); second != t.second {
		t.second, t.n = second, 0
	}
	from := r.P.From.Addr().Unmap()
	sender := l.mix(uint64(r.Ifindex)<<32|word(from), 0)
	if from.IsUnspecified() && r.P.HasHeader() { // a client without an address
		mac, _ := r.P.MAC()
		sender = l.mix(sender, number(mac))
	}
	of, on := 0, 0
	for i := range t.told[:t.n] {
		if t.told[i].ifindex == r.Ifindex {
			on++
		}
		if t.told[i].sender == sender {
			of++
		}
	}
	if t.n == refusedTold || on == refusedToldOn || of == refusedToldOf {
		return true
	}
	t.told[t.n].sender, t.told[t.n].ifindex = sender, r.Ifindex
	t.n++
	return false
}
