package v4

import (
	"time"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// This file bounds how often an address passes from client to client. A new router takes its
// customer's address over at once, but two that both want it would take it from each other at
// every renewal. So whoever took it from another keeps it until its first renewal is due.

// prior returns from whom the client takes the address of a record, of l, over, as it is to be kept in
// its own; zero: from nobody. What expired or was given up, if only by nobody knows whom, is no
// client's to be taken from, and on the line itself what somebody got elsewhere is not either.
func (c *decider) prior(old *lease.Record, l *provision.Line) provision.MAC {
	switch {
	case !old.Live(c.now):
		return provision.MAC{}
	case c.same(old):
		return old.Prior
	case old.MAC == c.mac: // the same card under another identifier is no rival of itself
		return provision.MAC{}
	case old.State != lease.StateBound, l != nil && c.d.Match.placed && c.foreign(old, l):
		return provision.MAC{}
	}
	return old.MAC
}

// damped reports whether the client is to wait before it takes over the address of a record,
// because its holder has just taken it from somebody; t1 is the renewal time, in seconds, that
// clients of the address are told. It notes who has the address and until when. A record
// from a clock that was ahead says nothing.
func (c *decider) damped(rec *lease.Record, t1 uint32) bool {
	if rec.Prior.IsZero() || rec.State != lease.StateBound || !rec.Live(c.now) || c.same(rec) || rec.MAC == c.mac || rec.Start.After(c.now) {
		return false
	}
	until := rec.Start.Add(time.Duration(t1) * time.Second)
	if !c.now.Before(until) {
		return false
	}
	c.d.Rival, c.d.Until = rec.MAC, until
	return true
}

// dampedBinding is damped for an address of the ERP. One that the ERP has moved to another
// line or customer since is not fought over: its old holder is to leave it. Nor is one to which its operator gave the client's MAC
// since.
func (c *decider) dampedBinding(b Binding, rec *lease.Record) bool {
	if rec.Prior.IsZero() || !c.isPlace(rec, b) || !c.differs(b.Line) && c.overruled(rec, b) {
		return false
	}
	n := c.cfg.subnetOf(b.IP)
	return n != nil && c.damped(rec, n.t1)
}
