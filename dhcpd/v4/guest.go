package v4

import (
	"github.com/usher-agent/usher/dhcpd/line"
	"github.com/usher-agent/usher/dhcpd/wire"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
)

// A pool for guests knows a client by its MAC, which the client writes itself. While a lease with that MAC is live on one
// line, the same MAC on another is another guest: it gets an address of its own, and what the first one has does not change.

// guest returns whom the pools for guests know the client as.
func (c *decider) guest() provision.Owner {
	if c.owner.IsZero() {
		c.owner = c.guestNow()
	}
	return c.owner
}

func (c *decider) guestNow() provision.Owner {
	if before := c.guestBefore(); !before.IsZero() {
		return before
	}
	alone, here := c.mac.Owner(), c.mac.OwnerOn(lineKey(&c.r.P, &c.r.P.Relay))
	elsewhere := false
	for i := range c.cfg.pools {
		if c.cfg.pools[i].Kind != PoolGuests {
			continue
		}
		if a, ok := c.pools.Owned(i, here); ok {
			if rec, known := c.leases.Get(a); !known || rec.Key != here || rec.Live(c.now) {
				return here // it was offered or leased to it as such
			}
		}
		if a, ok := c.pools.Owned(i, alone); ok && !elsewhere {
			rec, known := c.leases.Get(a)
			elsewhere = known && c.guestElsewhere(&rec)
		}
	}
	if elsewhere {
		return here
	}
	return alone
}

// guestElsewhere reports whether a guest's lease with the client's MAC is live, and not where the client is.
func (c *decider) guestElsewhere(rec *lease.Record) bool {
	return rec.Pool != "" && rec.Subscriber == 0 && rec.MAC == c.mac && rec.Live(c.now) && c.comesFrom(rec) == placeOther
}

// guestBefore returns whom the pools know the client as if it was given its address on this very line while the subscriber-id
// was no part of the line's number; zero: it was not. What it has then stays its own.
func (c *decider) guestBefore() provision.Owner {
	if len(c.r.P.Relay.RelaySubscriberID) == 0 {
		return provision.Owner{}
	}
	less := c.r.P.Relay
	less.RelaySubscriberID = nil
	before := c.mac.OwnerOn(lineKey(&c.r.P, &less))
	for i := range c.cfg.pools {
		if c.cfg.pools[i].Kind != PoolGuests {
			continue
		}
		if a, ok := c.pools.Owned(i, before); ok {
			if rec, known := c.leases.Get(a); known && rec.Key == before && rec.Live(c.now) && c.comesFrom(&rec) == placeSame {
				return before
			}
		}
	}
	return provision.Owner{}
}

// lineKey is a number for where the client of a packet is: for the port that an option 82 names, else for its relay or the interface.
func lineKey(p *line.Packet, r *wire.RelayInfo) uint64 {
	mac, _ := p.MAC()
	if k := portKey(r, p.GIAddr(), p.Ingress.Name, mac); k != 0 {
		return k
	}
	var h hash
	if gi := p.GIAddr(); gi.IsValid() {
		four := gi.As4()
		h.add(four[:]...)
		return h.sum()
	}
	for i := range len(p.Ingress.Name) {
		h.add(p.Ingress.Name[i])
	}
	return h.sum()
}

// ownGuest reports whether a renewal of a guest's address comes from its client, and makes it the holder.
func (c *decider) ownGuest(rec *lease.Record) bool {
	if c.guestElsewhere(rec) {
		return false
	}
	if rec.Subscriber == 0 {
		c.owner = rec.Holder()
	}
	return true
}
