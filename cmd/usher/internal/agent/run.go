package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/console"
)

const (
	// StopLimit is how long an agent may take to end after its context.
	StopLimit = 2 * time.Second
	// leaseFlush is how often renewals are written to disk.
	leaseFlush = time.Second
)

// errStuck is the end of an agent of which a part goes on.
var errStuck = errors.New("some part did not stop")

// task is a job that goes on until its context ends. Its error ends the agent.
type task struct {
	name string
	run  func(context.Context) error
}

// tasks lists what runs, as the configuration has it.
func (a *Agent) tasks(reload <-chan struct{}) []task {
	list := []task{
		{"poll", a.syncer.Run},
		{"answers", a.erp.keep},
		{"enforce", a.enforcer.Run},
		{"updates", a.kickOnUpdate},
		{"rights of leases", a.follower.Run},
		{"leases", a.writeLeases},
		{"macs", a.adoptMACs},
		{"reports", a.outbox.Run},
		{"audit", a.audit.Run},
	}
	if a.dhcp != nil && !a.dryRun {
		list = append(list, task{"dhcp", a.dhcp.Run})
	}
	if a.links != nil {
		list = append(list, task{"interfaces", a.links.Run},
			task{"guarded interfaces", func(ctx context.Context) error { return a.follower.Interfaces(ctx, a.links.View) }})
	}
	if a.waysBack != nil {
		list = append(list, task{"ways back", a.waysBack.Run})
	}
	if a.routes != nil {
		changed := a.leases.Touched() // from before its first look at all of them
		list = append(list, task{"routes", a.routes.Run},
			task{"leases to routes", func(ctx context.Context) error { return a.routes.Follow(ctx, changed) }},
			task{"subnets to routes", a.followSubnets})
	}
	if a.neighbours != nil {
		list = append(list, task{"neighbours", a.neighbours.Run})
	}
	if a.cfg.Load().ACL.Enabled {
		list = append(list, task{"heard", a.hear})
	}
	list = append(list, task{"control", a.serveControl})
	// The console, the hooks and the portal may fail without taking DHCP with them: they try again by themselves.
	if a.cfg.Load().Console.Listen.IsValid() {
		list = append(list, task{"console", a.serveConsole})
	}
	if a.hooks != nil {
		list = append(list, task{"hooks", a.serveHooks})
	}
	list = append(list, task{"garden", a.garden.Run})
	if a.portal != nil {
		list = append(list, task{"portal", a.portal.Run})
	}
	return append(list,
		task{"reload", func(ctx context.Context) error { return a.reloadOn(ctx, reload) }},
		task{"watchdog", func(ctx context.Context) error { a.service.Watch(ctx, a.alive); return nil }})
}

// Run serves until ctx ends or an essential part fails, and stops the agent
// then. Each value of reload has the configuration read again. It runs once.
func (a *Agent) Run(ctx context.Context, reload <-chan struct{}) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, t := range a.tasks(reload) {
		g.Go(func() error {
			if err := t.run(ctx); !isCanceled(err) {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			return nil
		})
	}
	cfg := a.cfg.Load()
	a.log.Info("agent started", "version", a.build.Version, "erp", cfg.ERP.Client.URL, "dhcp", cfg.DHCP.Enabled,
		"acl", cfg.ACL.Enabled, "dry_run", a.dryRun, "acl_dry_run", cfg.ACL.DryRun, "socket", cfg.Control.Socket, "console", cfg.Console.Listen)
	a.service.Ready()

	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	err := boundedStop(ctx, StopLimit-200*time.Millisecond, done)
	a.service.Stopping()
	limit := StopLimit // a slow disk may need it for what is left
	if errors.Is(err, errStuck) {
		limit = 200 * time.Millisecond // the time is over
	}
	err = errors.Join(err, a.teardown.run(limit))
	a.log.Info("agent stopped; kernel state and leases are left as they are", "error", err)
	return err
}

// Stop lets go of everything that New has opened, newest first, for an agent
// that was not run; Run does so itself. It takes no longer than StopLimit: the
// end of the process closes what hangs, which the error names. Kernel state and
// leases stay. A second call does nothing and returns the same.
func (a *Agent) Stop() error { return a.teardown.run(StopLimit) }

// boundedStop waits for done after ctx ended, at most limit.
func boundedStop(ctx context.Context, limit time.Duration, done <-chan error) error {
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("%w within %s", errStuck, limit)
	}
}

// isCanceled reports an end that was asked for.
func isCanceled(err error) bool { return err == nil || errors.Is(err, context.Canceled) }

// writeLeases brings renewals to disk in the background.
func (a *Agent) writeLeases(ctx context.Context) error {
	return a.leases.Run(ctx, leaseFlush, func(err error) {
		a.log.Debug("leases cannot be written; they are kept in memory and tried again", "error", err) // the store says it once a minute
	})
}

// adoptMACs has the leases learn of each whole fetch that is accepted what the ERP has for their addresses.
func (a *Agent) adoptMACs(ctx context.Context) error {
	updates := a.syncer.Updates()
	var last time.Time
	for {
		if s := a.syncer.Current(); !s.AcceptedAt().Equal(last) {
			last = s.AcceptedAt()
			_, overruled := a.leases.Adopt(s, time.Now())
			a.metrics.Overruled(overruled)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-updates:
		}
	}
}

func (a *Agent) serveControl(ctx context.Context) error {
	return console.ServeControl(ctx, a.control, console.NewControl(a.shown), a.doors.control, a.log)
}

func (a *Agent) serveConsole(ctx context.Context) error {
	return console.ServeHTTP(ctx, a.cfg.Load().Console.Listen, console.NewHTTP(a.shown, a.registry, a.log), a.doors.console, a.log, nil)
}

func (a *Agent) serveHooks(ctx context.Context) error {
	return console.ServeHTTP(ctx, a.cfg.Load().Hooks.Listen, a.hooks, a.doors.hooks, a.log, nil)
}

// kickOnUpdate asks for a round of the enforcer after each new snapshot and each
// change of a garden.
func (a *Agent) kickOnUpdate(ctx context.Context) error {
	updates := a.syncer.Updates()
	var gardens <-chan struct{}
	if a.garden != nil {
		gardens = a.garden.Updates()
	}
	a.enforcer.Kick()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-updates:
			a.enforcer.Kick()
		case <-gardens:
			a.enforcer.Kick()
		}
	}
}

// alive proves that no part is stuck on a lock, within the context's time.
func (a *Agent) alive(ctx context.Context) error {
	done := make(chan error, 1)
	go func() {
		a.syncer.Status()
		a.enforcer.Status()
		a.outbox.Status(0)
		a.garden.Status()
		if a.dhcp != nil && !a.dryRun {
			done <- a.dhcp.Alive()
			return
		}
		done <- nil
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("no answer from the agent's parts: %w", ctx.Err())
	}
}
