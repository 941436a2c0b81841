package agent

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link"
)

const (
	askPause  = 2 * time.Second
	askAtOnce = 64 // every few minutes each of 10,000 who are off
	// askAfter is how old an ACK has to be. Until then a client tries the address out (RFC 5227: 7 s at most), could take a question
	// for a conflict and decline. Who announces it afterwards is heard by that.
	askAfter = 10 * time.Second
)

// openHearing opens what hears the MACs of leases, which count for IPv6 from then on (sourceOptions).
func (a *Agent) openHearing(cfg *config.Config) {
	if !cfg.ACL.Enabled {
		return
	}
	h, err := link.OpenHearing(0)
	if err != nil {
		a.log.Warn("ARP cannot be heard: where IPv6 is blocked by MAC, only those of the ERP are", "error", err)
		return
	}
	a.teardown.push("arp", h.Close)
	a.hearing = h
}

// hear tells of who speaks ARP, and asks who does not, but for a dry run.
func (a *Agent) hear(ctx context.Context) error {
	if a.hearing == nil {
		<-ctx.Done()
		return nil
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.hearing.Run(ctx, a.follower.Heard) })
	if !a.dryRun && !a.cfg.Load().ACL.DryRun {
		g.Go(func() error { return a.askUnheard(ctx) })
	}
	return g.Wait()
}

// askUnheard asks clients whose MACs wait for it, by turns.
func (a *Agent) askUnheard(ctx context.Context) error {
	tick := time.NewTicker(askPause)
	defer tick.Stop()
	var last netip.Addr
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, u := range turn(settled(a.enforcer.Unheard(), time.Now()), &last) {
			if err := a.hearing.Ask(u.Interface, u.IP, u.MAC); err != nil {
				a.log.Debug("client of a lease cannot be asked", "ip", u.IP, "interface", u.Interface, "error", err)
			}
		}
	}
}

// settled returns those of a list whose clients have had their leases for a while.
func settled(list []access.Unheard, now time.Time) []access.Unheard {
	return slices.DeleteFunc(list, func(u access.Unheard) bool {
		age := now.Sub(u.Renewed)
		return age >= 0 && age < askAfter // what comes from the future is of a clock that was set back
	})
}

// turn returns those of a list in order who come after last, at most askAtOnce, and from its beginning where it ends.
func turn(list []access.Unheard, last *netip.Addr) []access.Unheard {
	i := 0
	for i < len(list) && list[i].IP.Compare(*last) <= 0 {
		i++
	}
	if i == len(list) {
		i = 0
	}
	list = list[i:min(i+askAtOnce, len(list))]
	if len(list) > 0 {
		*last = list[len(list)-1].IP
	}
	return list
}
