package line

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// insertingRelays is Options.Option82Relays made ready. The zero value is that nothing is said.
type insertingRelays struct {
	stated bool
	every  bool           // of those that are believed; also where the list has all that is in Options.Relays
	listed []netip.Prefix // as they are listed
	nets   []netip.Prefix // of these, networks
	single []uint32       // and single addresses, sorted
}

// ParseRelay reads an element of Options.Option82Relays that is no word: an IPv4 prefix or a single address.
func ParseRelay(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if !strings.Contains(s, "/") {
		var a netip.Addr
		a, err = netip.ParseAddr(s)
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if err != nil || !p.Addr().Is4() {
		return netip.Prefix{}, fmt.Errorf("option82 relay %q: want an IPv4 prefix or address", s)
	}
	return p.Masked(), nil
}

func compileInserting(list []string, relays []netip.Prefix) (r insertingRelays, err error) {
	r.stated = len(list) > 0
	for _, word := range []string{NoRelay, EveryRelay} {
		if slices.Contains(list, word) {
			if len(list) > 1 {
				return r, fmt.Errorf("option82 relay %q: it stands alone", word)
			}
			r.every = word == EveryRelay
			return r, nil
		}
	}
	var errs []error
	for _, s := range list {
		p, err := ParseRelay(s)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		r.listed = append(r.listed, p)
		if p.IsSingleIP() {
			r.single = append(r.single, number(p.Addr()))
		} else {
			r.nets = append(r.nets, p)
		}
	}
	slices.Sort(r.single)
	covered := func(x netip.Prefix) bool {
		return slices.ContainsFunc(r.listed, func(p netip.Prefix) bool { return p.Bits() <= x.Bits() && p.Contains(x.Addr()) })
	}
	r.every = len(relays) > 0 && r.stated && !slices.ContainsFunc(relays, func(x netip.Prefix) bool { return !covered(x) })
	return r, errors.Join(errs...)
}

func number(a netip.Addr) uint32 {
	four := a.As4()
	return binary.BigEndian.Uint32(four[:])
}

func (r *insertingRelays) has(a netip.Addr) bool {
	if r.every {
		return true
	}
	if !a.Is4() {
		return false
	}
	if _, ok := slices.BinarySearch(r.single, number(a)); ok {
		return true
	}
	for _, p := range r.nets {
		if p.Contains(a) {
			return true
		}
	}
	return false
}

// StatesOption82Relays reports whether it is said of which relays option 82 is believed; else it is of all.
func (c *Config) StatesOption82Relays() bool { return c.inserting.stated }

// Option82Relay reports whether option 82 that comes through a relay by an address of it is equipment's word, if that is
// stated at all. It may be a giaddr or an address that a packet comes from, of a relay that is believed.
func (c *Config) Option82Relay(a netip.Addr) bool { return c.inserting.has(a) }

// Option82Relays returns the prefixes and single addresses of such relays, as they are listed; none, too, where a word stands for them.
func (c *Config) Option82Relays() []netip.Prefix { return slices.Clone(c.inserting.listed) }
