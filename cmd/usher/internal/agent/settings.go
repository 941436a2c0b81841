package agent

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// What the parts need beside their options of the configuration comes to these here.

// ClientOptions returns those of a client of the ERP.
func ClientOptions(c config.ERP, userAgent string, log *slog.Logger, obs userside.Observer) userside.Options {
	o := c.Client
	o.UserAgent, o.Logger, o.Observer = userAgent, log, obs
	return o
}

// FetchOptions returns those of what is read from the ERP.
func FetchOptions(c *config.Config, memory *erp.Memory, log *slog.Logger) erp.Options {
	o := c.ERP.Fetch
	o.Policy, o.Memory, o.Log = &c.Policy, memory, log
	o.MaxMoved, o.MinChanged = new(c.Guard.MaxMoved), new(c.Guard.MinChanged)
	return o
}

func (a *Agent) syncOptions(c *config.Config) syncer.Options {
	o := c.ERP.Sync
	o.ERP = erp.Identity(c.ERP.Client.URL)
	o.Guard, o.Subnets, o.Reserved, o.Pools, o.Relays, o.KeepVacant = c.Guard, c.Prefixes(), c.Reserved(), c.PoolRanges(), c.DHCP.Relays, c.SubscriberPools()
	if c.DHCP.Enabled && !a.dryRun { // else no MAC is seen here
		o.OwnMAC = a.ownMAC
	}
	return o
}

// ownMAC reports whether a MAC is no surprise at an address: a client had it there, or the outbox sent it. Without an address, for a row
// of a pool has none, whether a client had any lease with it.
func (a *Agent) ownMAC(ip netip.Addr, mac provision.MAC) bool {
	if !ip.IsValid() {
		return len(a.leases.ByMAC(mac)) > 0
	}
	if rec, ok := a.leases.Get(ip); ok && (rec.MAC == mac || rec.Ours(mac)) {
		return true
	}
	return a.outbox.HasTold(ip, mac)
}

// dhcpOptions are those of the server. Leases get host routes where the keeper of routes runs.
func (a *Agent) dhcpOptions(c *config.Config) dhcpd.Options {
	o := c.DHCP.Options
	if a.routes != nil {
		o.HostRoutes = provision.Patterns(c.Routes.Interfaces).Match
	}
	return o
}

func enforceOptions(c config.ACL, inputs func() access.Inputs) access.Options {
	o := c.Options
	o.DryRun, o.Inputs = c.DryRun || !c.Enabled, inputs
	return o
}

func (a *Agent) outboxOptions(c outbox.Options) outbox.Options {
	c.Settled, c.Told = outbox.Settled(a.syncer.Current, a.leases), a.auditReport
	c.Changes, c.Overtaken = outbox.Changes(a.syncer.Current), outbox.Overtaken(a.leases)
	c.Row = func(ctx context.Context, r provision.MACReport) (provision.MAC, error) {
		return a.erp.row(ctx, r, a.syncer.Current())
	}
	c.Fetched = func() time.Time { return a.syncer.Current().FetchedAt() }
	c.Passed = outbox.Passed(a.syncer.Current)
	c.Foreign = func(r provision.MACReport) (provision.SubscriberID, netip.Addr, bool) {
		if a.dhcp == nil {
			return 0, netip.Addr{}, false
		}
		return a.dhcp.Foreign(r)
	}
	c.Accepted, c.Ours = outbox.Accepted(a.syncer.Current), outbox.Ours(a.leases)
	c.Sending, c.Taken = outbox.Note(a.leases, a.syncer.Current)
	return c
}
