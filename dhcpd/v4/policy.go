package v4

import (
	"bytes"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/dhcpd/outcome"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// ClientKey says by what a client is known again, in renewals and leases.
type ClientKey uint8

// The client keys. The zero value is today's default.
const (
	ClientKeyMAC ClientKey = iota // by its hardware address (chaddr)
	ClientKeyID                   // by its client identifier (option 61), else by its hardware address: RFC 2131 section 4.2
)

// Words are those of the configuration, by value.
func (ClientKey) Words() []string { return []string{"mac", "client_id"} }

// MACChange says what is done about a client whose MAC is not the one that the
// ERP has for its address. An address without a MAC learns it whatever it says.
type MACChange uint8

// The ways to deal with a changed MAC.
const (
	MACAccept MACChange = iota // answer, and tell the ERP
	MACReport                  // tell the ERP, answer when it has the MAC
	MACRefuse                  // neither
)

// Words are those of the configuration, by value.
func (MACChange) Words() []string { return []string{"accept", "report", "refuse"} }

// BindingChange says what a renewing client is told whose address is not bound
// to it any more.
type BindingChange uint8

// The ways to take an address away.
const (
	// BindingNAK refuses the renewal.
	BindingNAK BindingChange = iota
	// BindingShorten grants the old address once more for shortLease, if the ERP
	// binds it to nobody or the renewal came past the relay, and refuses it after that. A NAK for a renewal past the relay is
	// broadcast on the server's own wire (RFC 2131 section 4.1), where a client behind a relay does
	// not hear it: it would keep the address until it rebinds. The short ACK reaches it, and so it
	// rebinds through the relay within a minute.
	BindingShorten
)

// Words are those of the configuration, by value.
func (BindingChange) Words() []string { return []string{"nak", "shorten"} }

// shortLease is how long a client keeps an address that is about to be taken
// away, and what T1 and T2 of it are in seconds.
const (
	shortLease              = time.Minute
	shortRenew, shortRebind = 30, 52
)

// same reports whether the client that asks is the one of a lease. Pools know clients by
// their MAC, whatever the key: one with another MAC is another client there.
func (m *matcher) same(rec *lease.Record) bool {
	if m.cfg.clientKey == ClientKeyID && rec.Pool == "" {
		if id := m.r.P.ClientID(); len(id) > 0 || len(rec.ClientID) > 0 {
			return bytes.Equal(id, rec.ClientID)
		}
	}
	return rec.MAC == m.mac
}

// differs reports whether the ERP does not have the client's MAC for a line. Where
// clients are found by their client-id, the MAC in it counts as well.
func (m *matcher) differs(l *provision.Line) bool {
	if l.MAC == m.mac {
		return false
	}
	mac, ok := m.idMAC()
	return !ok || l.MAC != mac
}

// permit says why the client may not have b now, although it was found; zero: it may. old is
// what is recorded of the address; zero: nothing.
func (c *decider) permit(b Binding, old *lease.Record) outcome.Outcome {
	if c.cfg.macChange != MACAccept && !b.MAC.IsZero() && c.differs(b.Line) && !(c.cfg.macChange == MACReport && c.outdated(old, b)) {
		if c.cfg.macChange == MACRefuse || !c.mayReport(b) {
			return outcome.MACRefused
		}
		return outcome.MACReported
	}
	if c.dampedBinding(b, old) {
		return outcome.TakeoverDamped
	}
	if c.cfg.maxMACs > 0 && c.crowded(b) {
		return outcome.PortMACLimit
	}
	return 0
}

// maxPortMACs bounds dhcp.max_macs_per_port: so many MACs are compared on the stack.
const maxPortMACs = 64

// crowd are other clients that are live on a port.
type crowd struct {
	seen [maxPortMACs]provision.MAC
	n    int
}

// join counts the client of a lease of l if it is another one, and reports whether there are as
// many as may be. On the line itself who got it elsewhere does not count, nor anywhere a record from a clock that was ahead.
func (c *decider) join(x *crowd, rec *lease.Record, l *provision.Line) (full bool) {
	if rec.MAC == c.mac || !rec.Live(c.now) || c.fromAhead(rec) || holds(x.seen[:x.n], rec.MAC) || c.d.Match.placed && c.foreign(rec, l) {
		return false
	}
	x.seen[x.n] = rec.MAC
	x.n++
	return x.n >= c.cfg.maxMACs
}

// onPort returns the lines of l's port.
func (c *decider) onPort(l *provision.Line) provision.Lines {
	if l.Port == 0 {
		return c.d.Match.Loc.Lines // by its name
	}
	return c.snap.ByPort(l.Device, l.Port)
}

// crowded reports whether as many other clients as may be are live on b's port.
// One that has the address already is not the next one, and who had b before
// makes room for it.
func (c *decider) crowded(b Binding) bool {
	if rec, ok := c.lease(b.IP, new(lease.Record)); ok && rec.MAC == c.mac && rec.Live(c.now) {
		return false
	}
	var others crowd
	lines := c.onPort(b.Line)
	for i := range lines.Len() {
		l := lines.At(i)
		for ip := range l.Hosts4() {
			if ip == b.IP {
				continue
			}
			if rec, ok := c.leases.Get(ip); ok && c.join(&others, &rec, l) {
				return true
			}
		}
	}
	return false
}

func holds(list []provision.MAC, mac provision.MAC) bool {
	for _, m := range list {
		if m == mac {
			return true
		}
	}
	return false
}

// shorten plans an ACK for an address that the client is to leave, if it may
// keep it a moment longer: nobody else is to have it, nor may get it from a pool, and
// this is the first time. Past the relay anybody may have sent the renewal, and nobody knows whether the client hears the ACK: there the
// address stays its own as long as it was told before, and is given up when the client is refused through its relay.
func (c *decider) shorten(ciaddr netip.Addr) bool {
	if c.cfg.bindingChange != BindingShorten || c.cfg.PoolOf(ciaddr) >= 0 {
		return false
	}
	rec, known := c.lease(ciaddr, new(lease.Record))
	if c.snap.ByIP(ciaddr) != nil && !c.past(rec) {
		return false // who is to have it waits for this client, which hears a NAK
	}
	// A pool's address is not extended without the disk; its lease is short anyway.
	if !known || rec.Pool != "" || rec.MAC != c.mac || !c.same(rec) || !rec.Live(c.now) || rec.Expires.Sub(rec.Renewed) <= shortLease {
		return false
	}
	n := c.cfg.subnetOf(ciaddr)
	if n == nil {
		return false
	}
	if rec.Renewed.After(rec.Start) && c.now.Sub(rec.Renewed) < shortLease && rec.Expires.Sub(rec.Renewed) < n.lease {
		return false // that was such an ACK, for it left the lease as long as it was
	}
	id := c.serverID(n)
	if !id.IsValid() {
		return false
	}
	c.d.Outcome, c.d.YourIP, c.d.Binding = outcome.AckShortened, ciaddr, Binding{}
	c.d.Reply = wire.Reply{
		Type: wire.Ack, CIAddr: ciaddr, YIAddr: ciaddr, ServerID: id, Options: c.options(n),
		LeaseTime: uint32(shortLease / time.Second), RenewTime: shortRenew, RebindTime: shortRebind,
	}
	c.d.Change, c.d.Rec = ChangeRenew, *rec
	c.d.Rec.Renewed, c.d.Rec.Expires = c.now, c.now.Add(shortLease)
	if c.past(rec) {
		c.d.Rec.Expires = c.notBefore(rec, c.d.Rec.Expires)
	}
	c.route()
	return true
}
