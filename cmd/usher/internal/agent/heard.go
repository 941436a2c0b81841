package agent

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/link"
)

const (
	askPause  = 2 * time.Second
	askAtOnce = 64 // every few minutes each of 10,000 who are off
	// askAfter is how old an ACK has to be. Until then a client tries the address out (RFC 5227: 7 s at most), could take a question
	// for a conflict and decline. Who announces it afterwards is heard by that.
	askAfter = 10 * time.Second
	// hearAgain is how long nobody hears after an error.
	hearAgain = 10 * time.Second
)

// hearing hears the MACs of leases, which count for IPv6 from then on (sourceOptions).
type hearing struct {
	open    func() (listener, error)
	heard   func(wire string, ip netip.Addr, mac provision.MAC)
	unheard func() []access.Unheard // nil: nobody is asked
	deaf    func(error)             // nil: it hears
	log     *slog.Logger
}

// listener is what link.Hearing is.
type listener interface {
	Run(ctx context.Context, on func(wire string, ip netip.Addr, mac provision.MAC)) error
	Ask(wire string, ip netip.Addr, mac provision.MAC) error
	Close() error
}

// hear tells of who speaks ARP, and asks who does not, but for a dry run.
func (a *Agent) hear(ctx context.Context) error {
	h := hearing{heard: a.follower.Heard, deaf: a.follower.Deaf, log: a.log, open: func() (listener, error) { return link.OpenHearing(0) }}
	if !a.dryRun && !a.cfg.Load().ACL.DryRun {
		h.unheard = a.enforcer.Unheard
	}
	h.run(ctx)
	return nil
}

// run hears until ctx ends. What keeps it from that ends nothing else: it is told and tried again.
func (h *hearing) run(ctx context.Context) {
	for {
		err := h.once(ctx)
		if ctx.Err() != nil {
			return
		}
		h.deaf(err)
		h.log.Warn("ARP cannot be heard: of MACs that only leases tell those that were heard go on counting for IPv6, and no others", "error", err, "retry_in", hearAgain)
		select {
		case <-ctx.Done():
			return
		case <-time.After(hearAgain):
		}
	}
}

func (h *hearing) once(ctx context.Context) error {
	l, err := h.open()
	if err != nil {
		return err
	}
	h.deaf(nil)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := l.Run(ctx, h.heard); err != nil || ctx.Err() != nil {
			return err
		}
		return errors.New("it ended by itself") // else askUnheard went on
	})
	if h.unheard != nil {
		g.Go(func() error { h.askUnheard(ctx, l); return nil })
	}
	return errors.Join(g.Wait(), l.Close())
}

// askUnheard asks clients whose MACs wait for it, by turns.
func (h *hearing) askUnheard(ctx context.Context, l listener) {
	tick := time.NewTicker(askPause)
	defer tick.Stop()
	var last netip.Addr
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		for _, u := range turn(settled(h.unheard(), time.Now()), &last) {
			if err := l.Ask(u.Interface, u.IP, u.MAC); err != nil {
				h.log.Debug("client of a lease cannot be asked", "ip", u.IP, "interface", u.Interface, "error", err)
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
