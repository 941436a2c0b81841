package v4

import (
	"fmt"
	"net/netip"

	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
)

// Voucher is who vouches for what a packet says about where its client is. The zero value is nobody:
// what is said is the client's own word.
type Voucher uint8

// The vouchers.
const (
	VoucherNone      Voucher = iota
	VoucherAnyRelay          // a relay, and dhcp.relays is empty: anybody may say that
	VoucherSource            // a relay in dhcp.relays, by an address that is not there: dhcp.check_relay_source does not ask
	VoucherRelay             // a relay in dhcp.relays, by an address that is there too
	VoucherAnySwitch         // a switch, or a client: dhcp.trusted_interfaces is left out
	VoucherSwitch            // a switch on an interface of dhcp.trusted_interfaces
	VoucherVLAN              // the interface itself, which is that of a VLAN
	voucherEnd
)

// String returns none, any_relay, unlisted_source, relay, any_switch, trusted_interface or vlan_interface.
func (v Voucher) String() string {
	if v >= voucherEnd {
		return "invalid"
	}
	return [voucherEnd]string{"none", "any_relay", "unlisted_source", "relay", "any_switch", "trusted_interface", "vlan_interface"}[v]
}

// MarshalText implements encoding.TextMarshaler by String.
func (v Voucher) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (v *Voucher) UnmarshalText(b []byte) error {
	for x := range voucherEnd {
		if x.String() == string(b) {
			*v = x
			return nil
		}
	}
	return fmt.Errorf("voucher %q: no such one", b)
}

// RelayedInfo is what is thought of the option 82 of a packet whose relay is believed. That is another question than whose the
// relay's address is: a relay that inserts none passes on what its client wrote.
type RelayedInfo uint8

// What is thought of it. The zero value is that there is nothing to think of: no relay forwarded the packet, the relay
// is not believed, or there is no option 82.
const (
	InfoNone      RelayedInfo = iota
	InfoListed                // believed: dhcp.option82_relays has the relay, or says all
	InfoUnsaid                // believed because dhcp.option82_relays is left out
	InfoUntrusted             // left out of account
	infoEnd
)

// RelayedInfos returns all of them.
func RelayedInfos() []RelayedInfo {
	return []RelayedInfo{InfoNone, InfoListed, InfoUnsaid, InfoUntrusted}
}

// String returns none, listed, unsaid or untrusted.
func (i RelayedInfo) String() string {
	if i >= infoEnd {
		return "invalid"
	}
	return [infoEnd]string{"none", "listed", "unsaid", "untrusted"}[i]
}

// MarshalText implements encoding.TextMarshaler by String.
func (i RelayedInfo) MarshalText() ([]byte, error) { return []byte(i.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler. A word that is none becomes one whose String is "invalid":
// a command may be older than the agent that it asks.
func (i *RelayedInfo) UnmarshalText(b []byte) error {
	for *i = 0; *i < infoEnd && i.String() != string(b); *i++ {
	}
	return nil
}

// Trust is what is thought of the way that a packet came, before anything is looked up for it.
type Trust struct {
	By      Voucher         // who vouches for the relay's address, or for option 82 without a relay, or for the VLAN
	Info    RelayedInfo     // whether the relay's option 82 counts
	Refused outcome.Outcome // why it is not looked at; zero: it is
}

// Judge says who vouches for a packet, and leaves an option 82 out of account for which nobody does: for that of a relay it is
// not enough that somebody vouches for the relay. It is to be called before Decide, with the same bindings and configuration; what it refuses is no reason to
// limit anybody. A packet without a sender, of Explain, is taken to come from its relay's address.
func Judge(r *Request, snap *provision.Snapshot, cfg *Config) {
	r.Trust = Trust{}
	p := &r.P
	if p.Err != nil {
		return
	}
	if p.GIAddr().IsValid() {
		w := cfg.relay(p)
		r.Trust.Refused = w.poses(r, snap, cfg)
		if r.Trust.Refused == 0 && p.Type() != wire.LeaseQuery {
			r.Trust.By, r.Trust.Refused = w.relayed(cfg)
			if r.Trust.Refused == 0 && p.HasOption82() {
				if r.Trust.Info = w.info(cfg); r.Trust.Info == InfoUntrusted {
					p.Disbelieve()
				}
			}
		}
	} else {
		r.Trust.By = direct(r, cfg)
	}
	if r.Trust.Refused == 0 && p.Type() == wire.LeaseQuery && !cfg.MayQuery(p.GIAddr()) {
		r.Trust.Refused = outcome.LeaseQueryRefused
	}
}

// relay is what dhcp.relays has of a packet's relay: of its address and of the one that the packet comes from.
type relay struct {
	gi, from             netip.Addr
	giListed, fromListed bool
	giAlone, fromAlone   bool // as one address
}

func (c *Config) relay(p *line.Packet) relay {
	w := relay{gi: p.GIAddr(), from: p.From.Addr().Unmap()}
	w.giListed, w.giAlone = c.line.Lists(w.gi)
	if !w.from.IsValid() || w.from == w.gi {
		w.from, w.fromListed, w.fromAlone = w.gi, w.giListed, w.giAlone
	} else {
		w.fromListed, w.fromAlone = c.line.Lists(w.from)
	}
	return w
}

// direct judges a packet that no relay forwarded.
func direct(r *Request, cfg *Config) Voucher {
	p := &r.P
	switch {
	case p.HasOption82() && p.Ingress.Untrusted:
		p.Disbelieve()
	case p.HasOption82() && cfg.line.StatesTrust():
		return VoucherSwitch
	case p.HasOption82():
		return VoucherAnySwitch
	}
	if p.VLAN() != 0 {
		return VoucherVLAN
	}
	return VoucherNone
}

// poses says why a packet with a relay's address is none of a relay, whatever is listed but this
// very address; zero: it may be one. Else whoever can reach us could write another's port into it.
func (w *relay) poses(r *Request, snap *provision.Snapshot, cfg *Config) outcome.Outcome {
	gi, from, giAlone, fromAlone := w.gi, w.from, w.giAlone, w.fromAlone
	if from.IsUnspecified() {
		return outcome.RelayNoSource
	}
	if r.P.Type() == wire.LeaseQuery {
		giAlone, fromAlone = giAlone || cfg.queriesAlone(gi), fromAlone || cfg.queriesAlone(from)
	}
	switch {
	case giAlone && fromAlone && !(r.P.Ingress.Customers && offNetwork(r.On, from)):
		return 0
	case r.OwnFrom && !fromAlone:
		return outcome.RelayNoSource
	case !fromAlone && isSubscriber(from, snap, cfg), !giAlone && gi != from && isSubscriber(gi, snap, cfg):
		return outcome.RelaySubscriber
	case r.P.Ingress.Customers:
		return outcome.RelayInterface
	}
	return 0
}

// offNetwork reports whether an address is in none of the networks of an interface. Of an interface
// without a network nobody can tell.
func offNetwork(on *provision.Interface, a netip.Addr) bool {
	numbered := false
	if on != nil {
		for _, p := range on.Addrs {
			if p.Contains(a) {
				return false
			}
			numbered = numbered || !p.IsSingleIP()
		}
	}
	return numbered
}

// isSubscriber reports whether the ERP gives an address to somebody, or it is of a pool.
func isSubscriber(a netip.Addr, snap *provision.Snapshot, cfg *Config) bool {
	if snap.Taken(a) {
		return true
	}
	i := cfg.PoolOf(a)
	return i >= 0 && a != cfg.pools[i].gateway // no client gets that: a range that is a whole prefix has it in it
}

// relayed judges a packet by the lists of relays.
func (w *relay) relayed(cfg *Config) (Voucher, outcome.Outcome) {
	switch {
	case !cfg.line.ListsRelays():
		return VoucherAnyRelay, 0
	case !w.giListed:
		return VoucherNone, outcome.RelayUntrusted
	case w.borrowed(cfg):
		return VoucherNone, outcome.RelaySource
	case w.fromListed:
		return VoucherRelay, 0
	case cfg.line.SourceCheck() == line.SourceListed:
		return VoucherNone, outcome.RelaySource
	}
	return VoucherSource, 0
}

// info says whether a believed relay's option 82 is equipment's word. That follows from giaddr: only the relay that writes it
// may insert option 82, and who forwards the packet after that leaves both alone (RFC 3046 section 2.1.1).
func (w *relay) info(cfg *Config) RelayedInfo {
	switch {
	case !cfg.line.StatesOption82Relays():
		return InfoUnsaid
	case cfg.line.Option82Relay(w.gi):
		return InfoListed
	}
	return InfoUntrusted
}

// borrowed reports whether a packet names a relay whose option 82 is believed, and comes from a listed relay whose is not. That one
// passes on what its clients write, a giaddr too: nobody can tell whose it is. An address that is not listed, where such are believed, tells nothing.
func (w *relay) borrowed(cfg *Config) bool {
	return w.from != w.gi && w.fromListed && cfg.line.Option82Relay(w.gi) && !cfg.line.Option82Relay(w.from)
}
