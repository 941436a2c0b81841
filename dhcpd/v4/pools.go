package v4

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/usher-agent/usher/dhcpd/options"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/pool"
)

// Unknown is what becomes of a client that the ERP does not know.
type Unknown uint8

// What becomes of unknown clients.
const (
	UnknownSilence Unknown = iota // no answer, as RFC 2131 asks for
	UnknownNak                    // a NAK if it insists on an address, else no answer
	UnknownGuest                  // an address of a pool for guests
)

// Words are those of the configuration, by value.
func (Unknown) Words() []string { return []string{"silence", "nak", "guest"} }

// PoolKind is whom a pool serves. Its zero value is invalid.
type PoolKind uint8

// The kinds of pools. Where no pool for subscribers serves the wire, a customer
// of the ERP without an address is a guest like one whom it does not know.
const (
	PoolGuests      PoolKind = iota + 1 // clients that the ERP does not know
	PoolSubscribers                     // customers to whom the ERP gives a port, a MAC or a VLAN but no address
)

// Words are those of the configuration, by value.
func (PoolKind) Words() []string { return []string{"", "guests", "subscribers"} }

// String returns guests, subscribers or invalid.
func (k PoolKind) String() string {
	if words := k.Words(); k > 0 && int(k) < len(words) {
		return words[k]
	}
	return "invalid"
}

// Range is the first and the last address of a range.
type Range struct{ First, Last netip.Addr }

// RangeOf returns the range of an IPv4 prefix, with its network and broadcast addresses.
func RangeOf(p netip.Prefix) Range {
	b := p.Masked().Addr().As4()
	n := binary.BigEndian.Uint32(b[:]) | ^uint32(0)>>p.Bits()
	return Range{p.Masked().Addr(), netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n)))}
}

// NoHosts returns the addresses of an IPv4 prefix that no host may have: the network's and the
// broadcast's. A /31 and a /32 have none (RFC 3021).
func NoHosts(p netip.Prefix) []netip.Addr {
	if p.Bits() >= 31 {
		return nil
	}
	all := RangeOf(p)
	return []netip.Addr{all.First, all.Last}
}

// Size returns how many addresses it has.
func (r Range) Size() int {
	first, last := r.First.As4(), r.Last.As4()
	return int(binary.BigEndian.Uint32(last[:])-binary.BigEndian.Uint32(first[:])) + 1
}

// Overlaps reports whether any address is in both.
func (r Range) Overlaps(o Range) bool { return !r.Last.Less(o.First) && !o.Last.Less(r.First) }

// Pool is a range that the server gives addresses of by itself. It lies in one of
// the Subnets, whose settings its clients are told unless the pool has its own.
type Pool struct {
	// Small letters, digits, - and _; it is a label of metrics.
	Name string `cfg:"name" read:"pool_name" required:"a short name such as guests" example:"guests"`

	// First and last address, or a prefix; within one of the subnets.
	Range `cfg:"range" read:"range" required:"a range such as 198.51.100.200-198.51.100.250, or a prefix" example:"198.51.100.200-198.51.100.250"`

	// guests: clients whom the ERP does not know (unknown_clients: guest).
	// subscribers: customers to whom the ERP gives a port, a MAC or a VLAN, but
	// no address. They are found by dhcp.match, and their state decides.
	Kind PoolKind `cfg:"for" default:"guests"`

	// Other wires that the pool serves, by the address of their relay or interface.
	// It always serves that of its own subnet.
	Links []netip.Prefix `cfg:"links" read:"ipv4_network"`

	// Short for guests: a client that the ERP learns to know moves to its own
	// address when it renews. 1m to a year. For subscribers 1h unless it is set.
	LeaseTime time.Duration `cfg:"lease_time" read:"seconds" min:"1m" max:"8760h" example:"2m"`

	// Ask the wire by ARP (RFC 5227) before an offer; not behind relays.
	Probe bool `cfg:"probe" default:"true"`

	// In use beyond this share: a warning in the log and in the metrics.
	WarnAt float64 `cfg:"warn_at" read:"share" default:"90%" max:"100%"` // 0: no warning

	// As in subnets, in place of what the subnet tells. Empty: what the subnet
	// tells. captive_portal (example) is where guests learn what to do.
	options.OptionSet `cfg:",inline" layout:"plain" example:"captive_portal: https://portal.example.net/api"`
}

// Check reports a range that is not within one subnet, or has no address for a
// client, as key: reason.
func (p *Pool) Check(subnets []Subnet) error {
	text := fmt.Sprintf("range: %v-%v", p.First, p.Last)
	for i := range subnets {
		n := &subnets[i]
		switch in := n.Prefix.Contains(p.First); {
		case in != n.Prefix.Contains(p.Last):
			return fmt.Errorf("%s is only partly in %v", text, n.Prefix)
		case in && n.usable(p.Range) == 0:
			return fmt.Errorf("%s has no address for a client: only the network's, the broadcast's or the gateway's", text)
		case in:
			return nil
		}
	}
	return fmt.Errorf("%s is in none of dhcp.subnets", text)
}

// usable returns how many addresses of a range within the subnet are neither the
// network's, nor the broadcast's, nor the gateway's.
func (n *Subnet) usable(r Range) int {
	left := r.Size()
	for _, a := range append(NoHosts(n.Prefix), n.Gateway) {
		if a.IsValid() && r.Overlaps(Range{a, a}) {
			left--
		}
	}
	return left
}

const (
	defaultQuarantine = time.Hour
	// OfferHold is how long an offered address is kept for its client: until it
	// has surely asked for it or taken the offer of somebody else.
	OfferHold = time.Minute
)

// dynamicPool is one pool ready for the packet path.
type dynamicPool struct {
	Pool
	subnet // what its clients are told; prefix is the wire's
}

// serves reports whether the pool is for the wire of at, the address of its relay or interface.
func (p *dynamicPool) serves(at netip.Addr) bool {
	if !at.IsValid() {
		return false
	}
	if p.prefix.Contains(at) {
		return true
	}
	for _, l := range p.Links {
		if l.Contains(at) {
			return true
		}
	}
	return false
}

// compilePools checks o.Pools; the subnets of cfg are ready.
func (cfg *Config) compilePools(o Options) error {
	cfg.unknown = o.Unknown
	cfg.quarantine = cmp.Or(o.Quarantine, defaultQuarantine)
	var errs []error
	if o.Unknown > UnknownGuest {
		errs = append(errs, fmt.Errorf("unknown clients %d: no such kind", o.Unknown))
	}
	if cfg.quarantine < 0 {
		errs = append(errs, fmt.Errorf("quarantine %v: negative", cfg.quarantine))
	}
	for _, p := range o.Pools {
		c, err := cfg.compilePool(&o, p)
		if err != nil {
			errs = append(errs, fmt.Errorf("pool %q: %w", p.Name, err))
			continue
		}
		for i := range cfg.pools {
			if other := &cfg.pools[i]; other.Name == p.Name || p.Overlaps(other.Range) {
				errs = append(errs, fmt.Errorf("pool %q: has the name of pool %q or overlaps it", p.Name, other.Name))
			}
		}
		cfg.pools = append(cfg.pools, c)
	}
	return errors.Join(errs...)
}

func (cfg *Config) compilePool(o *Options, p Pool) (dynamicPool, error) {
	if p.Name == "" || p.Kind != PoolGuests && p.Kind != PoolSubscribers {
		return dynamicPool{}, errors.New("want a name, and the kind guests or subscribers")
	}
	if err := p.Check(o.Subnets); err != nil {
		return dynamicPool{}, err
	}
	i := slices.IndexFunc(o.Subnets, func(n Subnet) bool { return n.Prefix.Contains(p.First) && n.Prefix.Contains(p.Last) })
	n := o.Subnets[i]
	n.LeaseTime, n.RenewTime, n.RebindTime = p.LeaseTime, 0, 0
	sub, err := cfg.compileSubnet(o.Common, n)
	if err != nil {
		return dynamicPool{}, err
	}
	sub.options, err = options.Compile(n.Prefix, n.Gateway, cfg.classes, o.Common, n.OptionSet, p.OptionSet)
	if err != nil {
		return dynamicPool{}, err
	}
	return dynamicPool{Pool: p, subnet: sub}, nil
}

// PoolOf returns the place of the pool whose range has a; -1 if there is none.
func (c *Config) PoolOf(a netip.Addr) int {
	for i := range c.pools {
		if p := &c.pools[i]; a.IsValid() && !a.Less(p.First) && !p.Last.Less(a) {
			return i
		}
	}
	return -1
}

// Pools returns the pools, in the order of the configuration.
func (c *Config) Pools() []Pool {
	all := make([]Pool, len(c.pools))
	for i := range c.pools {
		all[i] = c.pools[i].Pool
	}
	return all
}

// PoolNetwork returns the network of the pool at place i, and its gateway; invalid: none.
func (c *Config) PoolNetwork(i int) (prefix netip.Prefix, gateway netip.Addr) {
	return c.pools[i].prefix, c.pools[i].gateway
}

// maxDeclined is the share of a pool that DECLINEs and answers to ARP keep away for the whole of
// dhcp.quarantine. So many addresses are not really in use by others; somebody takes one after
// another to decline it, or answers for all, and those after that come back as soon as offers do.
const maxDeclined = 0.25

// Quarantine returns how long an address of a pool that is in use by somebody else
// is kept from others, if share of the pool is so already.
func (c *Config) Quarantine(share float64) time.Duration {
	if share >= maxDeclined {
		return min(c.quarantine, OfferHold)
	}
	return c.quarantine
}

// PoolView is what a decision may ask the allocators; it changes nothing.
type PoolView interface {
	// Pick chooses an address of the pool at place i for who; 0: there is none.
	Pick(i int, who provision.Owner, want netip.Addr, now time.Time) (netip.Addr, pool.Fit)
	// Slot tells what an address of the pool at place i is.
	Slot(i int, a netip.Addr, now time.Time) pool.Slot
	// Held is how many addresses of the pool at place i are offered or leased at a port.
	Held(i int, port uint64) int
	// Quarantined is the share of the pool at place i that is in quarantine.
	Quarantined(i int, now time.Time) float64
	// Owned returns the address of the pool at place i that who has or had last.
	Owned(i int, who provision.Owner) (netip.Addr, bool)
}

// usable reports whether who may have the address of the slot.
func usable(s pool.Slot, who provision.Owner) bool {
	switch s.State {
	case pool.StateFree:
		return !s.Bound
	case pool.StateOffered, pool.StateLeased:
		return !s.Bound && s.Owner == who
	}
	return false
}
