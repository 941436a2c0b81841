package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/bbolt"
	"golang.org/x/sync/errgroup"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/erp"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/neighbour"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/userside"
)

// leaseFlush is how often renewals are written to disk.
const leaseFlush = time.Second

// agent is the wiring of one "usher run".
type agent struct {
	path   string
	dryRun bool // from the command line: stays over reloads
	log    *slog.Logger
	cfg    atomic.Pointer[config.Config]
	status atomic.Pointer[console.ConfigStatus]

	metrics    *console.Metrics
	erp        *liveERP
	syncer     *syncer.Syncer
	enforcer   *access.Enforcer
	sources    *access.Sources
	follower   *access.Follower
	table      *acl.Table // nil: the kernel is not touched
	db         *bbolt.DB
	outbox     *outbox.Outbox
	leases     *lease.Table
	dhcp       *dhcpd.Server      // nil: dhcp.enabled is false
	links      *link.Watch        // nil: dhcp.enabled is false, or netlink does not work
	hooks      *console.Hooks     // nil: hooks.listen is off
	routes     *route.Keeper      // nil: routes.enabled is false
	routeTable *link.Routes       // of routes
	neighbours *neighbour.Watcher // nil: neighbours.enabled is false
	garden     *garden.Resolver
	portal     *portal.Server // nil: portal.listen and portal.https.listen are off
	deps       console.Deps
	control    net.Listener
	registry   *prometheus.Registry

	closers []func() error // in order of making
}

// newAgent makes every part and opens its sockets; nothing runs yet. On error
// nothing is left open.
func newAgent(path string, cfg *config.Config, dryRun bool, log *slog.Logger) (a *agent, err error) {
	a = &agent{path: path, dryRun: dryRun, log: log, erp: &liveERP{}}
	a.cfg.Store(cfg)
	logWarnings(cfg, log)
	defer func() {
		if err != nil {
			err = errors.Join(err, a.close())
		}
	}()
	reg := console.NewRegistry()
	a.metrics = console.NewMetrics(reg)
	build := console.Build{Version: version, Revision: revision(), GoVersion: runtime.Version()}
	a.metrics.SetBuild(build)
	a.configLoaded(nil)

	// Two agents on one host would undo each other's work: the socket tells.
	if a.control, err = console.ListenUnix(cfg.Control.Socket, cfg.Control.Group); err != nil {
		return a, err
	}
	a.onClose(func() error { return ignoreClosed(a.control.Close()) })
	fetcher, err := a.newFetcher(cfg)
	if err != nil {
		return a, err
	}
	a.erp.p.Store(fetcher)
	a.metrics.WatchBudget(func() userside.Budget { return a.erp.p.Load().Budget() })
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		log.Error("state directory cannot be made; the agent runs from memory", "path", cfg.StateDir, "error", err)
	}
	a.syncer = syncer.New(syncOptions(cfg), a.erp,
		syncer.NewStore(filepath.Join(cfg.StateDir, "snapshot")), a.metrics, log)
	if err := a.syncer.LoadStored(); err != nil {
		log.Error("stored snapshot cannot be used; waiting for the ERP", "error", err)
	}
	if err := a.openLeases(cfg); err != nil {
		return a, err
	}
	if err := a.openRoutes(cfg); err != nil {
		return a, err
	}
	if err := a.openNeighbours(cfg); err != nil {
		return a, err
	}
	events := dhcpd.NewEventLog(0)
	if err := a.openDHCP(cfg, events); err != nil {
		return a, err
	}
	a.openGarden(cfg)
	if err := a.openKernel(cfg); err != nil {
		return a, err
	}
	if err := a.openPortal(cfg); err != nil {
		return a, err
	}
	a.openHooks(cfg)
	a.deps = console.Deps{
		Build: build, Started: time.Now(), Kernel: a.deps.Kernel, Routes: a.deps.Routes, RouteProtocol: cfg.Routes.Protocol,
		Syncer: a.syncer, Enforcer: a.enforcer, Leases: a.leases, Outbox: a.outbox, Events: events,
		ERP: a.erp, Metrics: a.metrics, Garden: a.garden,
		Config: func() console.ConfigStatus { return *a.status.Load() },
	}
	if a.dhcp != nil {
		a.deps.DHCP, a.deps.Pools = a.dhcp, a.dhcp
		a.metrics.WatchPools(a.dhcp.Pools)
	}
	if a.dryRun {
		a.deps.DryRun, a.deps.ERP = true, nil // states are not changed in the ERP either
	}
	a.deps.ACL = a.aclDeps(cfg)
	a.metrics.WatchOpen(func() time.Time { return a.enforcer.Status().OpenUntil })
	a.registry = reg
	return a, nil
}

func (a *agent) onClose(f func() error) { a.closers = append(a.closers, f) }

// close lets everything go, newest first. Kernel state and leases stay.
func (a *agent) close() error {
	var errs []error
	for i := len(a.closers) - 1; i >= 0; i-- {
		errs = append(errs, a.closers[i]())
	}
	a.closers = nil
	return errors.Join(errs...)
}

func (a *agent) newFetcher(cfg *config.Config) (*erp.Fetcher, error) {
	opts, err := clientOptions(cfg.ERP, a.log, erpObserver{a.metrics, a.erpDown})
	if err != nil {
		return nil, err
	}
	client, err := userside.New(opts)
	if err != nil {
		return nil, err
	}
	policy, err := policyOf(cfg.Policy)
	if err != nil {
		return nil, fmt.Errorf("policy: %w", err)
	}
	return erp.New(client, fetchOptions(cfg.ERP, policy, a.erp.memoryFor(cfg.ERP.URL), a.log))
}

// erpObserver counts calls and tells when the ERP turns out to be down.
type erpObserver struct {
	userside.Observer
	down func()
}

// Call implements userside.Observer.
func (o erpObserver) Call(action string, took time.Duration, outcome userside.Outcome) {
	o.Observer.Call(action, took, outcome)
	if outcome == userside.OutcomeUnavailable || outcome == userside.OutcomeTimeout {
		o.down()
	}
}

// erpDown is called for every call that found the ERP down. Calls begin with run,
// when all parts are made.
func (a *agent) erpDown() { a.enforcer.NoFetchSoon() }

func (a *agent) openLeases(cfg *config.Config) (err error) {
	if a.db, err = openState(cfg.StateDir, a.log); err != nil {
		return err
	}
	a.onClose(a.db.Close)
	if a.leases, err = lease.Open(a.db); err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	if n, examples := a.leases.Skipped(); n > 0 {
		a.log.Warn("stored leases cannot be read and are left out", "count", n, "examples", examples)
	}
	a.outbox, err = outbox.Open(a.db, outboxOptions(cfg.Reports, a.syncer.Current, a.leases), a.erp, a.metrics, a.log)
	return err
}

func (a *agent) openDHCP(cfg *config.Config, events *dhcpd.EventLog) error {
	if !cfg.DHCP.Enabled {
		return nil
	}
	opts, err := dhcpOptions(cfg.DHCP)
	if err != nil {
		return err
	}
	deps := dhcpd.Deps{
		Snapshot: a.syncer.Current, Leases: a.leases, Journal: journal{a.db, a.leases, a.outbox, a.admit}, Volatile: inMemory(a.db),
		Observer: a.packetObservers(events), Log: a.log, Now: time.Now,
	}
	a.metrics.WatchLeases(func() lease.Counts { return a.leases.Counts(time.Now()) })
	a.openLinks(&deps)
	srv, err := dhcpd.New(opts, deps)
	if err != nil {
		return err
	}
	a.dhcp = srv
	if a.dryRun {
		return nil // it decides for "usher explain" and opens no socket
	}
	if err := srv.Listen(); err != nil {
		return err
	}
	a.onClose(srv.Close)
	a.metrics.WatchSockets(func() console.SocketCounts {
		n := console.SocketCounts{Sockets: srv.Sockets()}
		if a.links != nil {
			st := a.links.Status()
			n.Changes, n.Resyncs = st.Changes, st.Resyncs
		}
		return n
	})
	a.warnOfServerIDs()
	return nil
}

// openLinks follows the interfaces. Without it the server asks for them by itself.
func (a *agent) openLinks(deps *dhcpd.Deps) {
	w, err := link.OpenWatch(link.WatchOptions{Log: a.log})
	if err != nil {
		a.log.Warn("interfaces cannot be followed; the server asks for each every few seconds", "error", err)
		return
	}
	a.onClose(w.Close)
	a.links, deps.Links = w, w
}

// warnOfServerIDs tells of server identifiers that clients could not renew at. Where
// an address moves between routers it is right on one of them at a time.
func (a *agent) warnOfServerIDs() {
	if ids := a.dhcp.Sockets().ForeignServerIDs; len(ids) > 0 {
		a.log.Warn("server identifiers that are no address of this host: clients would renew elsewhere", "server_ids", ids)
	}
}

// openKernel opens the ACL. With dry_run, or when it is off, nothing in the kernel is touched.
func (a *agent) openKernel(cfg *config.Config) error {
	var kernel access.Kernel
	var flows access.Flows
	if cfg.ACL.Enabled && !cfg.ACL.DryRun {
		table, err := acl.Open(context.Background(), acl.Options{Log: a.log, Policy: aclPolicy(cfg)})
		if err != nil {
			return fmt.Errorf("acl: %w (it needs CAP_NET_ADMIN; with acl.dry_run: true nothing is touched)", err)
		}
		a.onClose(table.Close)
		f, err := link.OpenFlows(link.Options{Log: a.log})
		if err != nil {
			return fmt.Errorf("conntrack: %w", err)
		}
		a.onClose(f.Close)
		kernel, flows, a.table, a.deps.Kernel = table, f, table, table
	} else {
		kernel = acl.NewDryRun(a.log)
	}
	a.sources = access.NewSources(sourceOptions(cfg), a.leases, a.garden, a.interfaceNames)
	a.enforcer = access.NewEnforcer(enforceOptions(cfg.ACL, a.sources.Inputs), kernel, flows, a.syncer.Current, a.metrics, a.log)
	a.follower = access.Follow(a.sources, a.enforcer)
	return nil
}

// run serves until ctx ends or an essential part fails.
func (a *agent) run(ctx context.Context, hup <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	task := func(name string, f func(context.Context) error) {
		g.Go(func() error {
			if err := f(ctx); !isCanceled(err) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	task("poll", a.syncer.Run)
	task("enforce", a.enforcer.Run)
	task("enforce", a.kickOnUpdate)
	task("leases", func(ctx context.Context) error {
		return a.leases.Run(ctx, leaseFlush, func(err error) {
			a.log.Error("leases cannot be written; they are kept in memory and tried again", "error", err)
		})
	})
	task("reports", a.outbox.Run)
	if a.dhcp != nil && !a.dryRun {
		task("dhcp", a.dhcp.Run)
	}
	if a.links != nil {
		task("interfaces", a.links.Run)
		task("interfaces", func(ctx context.Context) error { return a.follower.Interfaces(ctx, a.links.View) })
	}
	if a.routes != nil {
		task("routes", a.keepRoutes)
	}
	if a.neighbours != nil {
		task("neighbours", a.watchNeighbours)
	}
	task("control", func(ctx context.Context) error {
		return console.ServeControl(ctx, a.control, console.NewControl(a.deps), a.log)
	})
	cfg := a.cfg.Load()
	if cfg.Console.Listen.IsValid() {
		// It may fail without taking DHCP with it: it tries again by itself.
		task("console", func(ctx context.Context) error {
			return console.ServeHTTP(ctx, cfg.Console.Listen, console.NewHTTP(a.deps, a.registry, a.log), a.log, nil)
		})
	}
	if a.hooks != nil {
		task("hooks", a.serveHooks)
	}
	task("garden", a.garden.Run)
	if a.portal != nil {
		task("portal", a.runPortal)
	}
	task("reload", func(ctx context.Context) error { return a.reloadOn(ctx, hup) })
	task("watchdog", func(ctx context.Context) error {
		feedWatchdog(ctx, a.log, a.alive)
		return nil
	})
	a.log.Info("agent started", "version", version, "erp", cfg.ERP.URL, "dhcp", cfg.DHCP.Enabled,
		"acl", cfg.ACL.Enabled, "dry_run", a.dryRun, "acl_dry_run", cfg.ACL.DryRun, "socket", cfg.Control.Socket, "console", cfg.Console.Listen)
	notify(a.log, daemon.SdNotifyReady)

	done := make(chan error, 1)
	go func() { done <- g.Wait() }()
	err := boundedStop(ctx, stopLimit-200*time.Millisecond, done)
	notify(a.log, daemon.SdNotifyStopping)
	limit := stopLimit // a slow disk may need it for what is left
	if errors.Is(err, errStuck) {
		limit = 200 * time.Millisecond // the time is over
	}
	err = errors.Join(err, a.letGo(limit))
	a.log.Info("agent stopped; kernel state and leases are left as they are", "error", err)
	return err
}

// letGo writes what is left and closes everything. A disk that hangs is waited for
// no longer than limit: the end of the process closes what is open then.
func (a *agent) letGo(limit time.Duration) error {
	done := make(chan error, 1)
	go func() {
		// Renewals answered while the parts were stopping.
		if err := a.leases.Flush(); err != nil {
			a.log.Error("last leases could not be written", "error", err)
		}
		done <- a.close()
	}()
	select {
	case err := <-done:
		return err
	case <-time.After(limit):
		return fmt.Errorf("state: not written and closed within %s: does the disk hang?", limit)
	}
}

// kickOnUpdate asks for a round of the enforcer after each new snapshot and each
// change of a garden.
func (a *agent) kickOnUpdate(ctx context.Context) error {
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
func (a *agent) alive(ctx context.Context) error {
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

func (a *agent) configLoaded(err error) {
	now := time.Now()
	data, _ := os.ReadFile(a.path)
	h := fnv.New64a()
	_, _ = h.Write(data)
	a.metrics.ConfigLoaded(now, h.Sum64(), err)
	st := console.ConfigStatus{Path: a.path, LoadedAt: now, Hash: fmt.Sprintf("%016x", h.Sum64())}
	if err != nil {
		if old := a.status.Load(); old != nil {
			st = *old
		}
		st.LastError = err.Error()
	}
	a.status.Store(&st)
}

func (a *agent) reloadOn(ctx context.Context, hup <-chan os.Signal) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
			notify(a.log, reloading())
			err := a.reload()
			a.configLoaded(err)
			if err != nil {
				a.log.Error("reload failed; the earlier configuration stays in use", "error", err)
			} else {
				a.log.Info("configuration reloaded", "path", a.path)
			}
			notify(a.log, daemon.SdNotifyReady)
		}
	}
}

// reload does what can fail first and touches live parts only then.
func (a *agent) reload() error {
	cfg, err := config.Load(a.path)
	if err != nil {
		return err
	}
	if a.dryRun {
		touchNothing(cfg)
	}
	old := a.cfg.Load()
	if keys := needRestart(old, cfg); len(keys) > 0 {
		return fmt.Errorf("%v cannot change while the agent runs: restart it", keys)
	}
	fetcher, err := a.newFetcher(cfg)
	if err != nil {
		return err
	}
	usePortal, err := a.preparePortal(cfg)
	if err != nil {
		return err
	}
	if a.dhcp != nil {
		opts, err := dhcpOptions(cfg.DHCP)
		if err != nil {
			return err
		}
		if err := a.dhcp.Reload(opts); err != nil {
			return err
		}
	}
	if a.dhcp != nil && !a.dryRun {
		a.warnOfServerIDs()
	}
	a.erp.p.Store(fetcher)
	if a.table != nil {
		a.table.Reconfigure(aclPolicy(cfg)) // the round that follows replaces the rules in one batch
	}
	a.sources.Reconfigure(sourceOptions(cfg))
	a.enforcer.Reconfigure(enforceOptions(cfg.ACL, a.sources.Inputs))
	a.outbox.Reconfigure(cfg.Reports.Rate, cfg.Reports.Burst, cfg.Reports.Enabled)
	a.syncer.Reconfigure(syncOptions(cfg))
	usePortal()
	a.garden.Reconfigure(gardenOptions(cfg), garden.ServerLookup(cfg.ACL.Resolvers))
	if a.hooks != nil {
		a.hooks.Reconfigure(hookOptions(cfg.Hooks))
	}
	a.reloadRoutes(cfg)
	a.reloadNeighbours(cfg)
	a.cfg.Store(cfg)
	logWarnings(cfg, a.log)
	return nil
}

// logWarnings tells of what works but should be known.
func logWarnings(cfg *config.Config, log *slog.Logger) {
	for _, w := range cfg.Warnings {
		log.Warn("configuration", "file", w.File, "line", w.Line, "key", w.Key, "warning", w.Reason)
	}
}

// needRestart lists the changed keys that a running agent cannot take.
func needRestart(old, new *config.Config) []string {
	var keys []string
	for _, k := range []struct {
		key     string
		changed bool
	}{
		{"state_dir", old.StateDir != new.StateDir},
		{"control", old.Control != new.Control},
		{"console.listen", old.Console != new.Console},
		{"hooks.listen", old.Hooks.Listen != new.Hooks.Listen},
		{"portal.listen", old.Portal.Listen != new.Portal.Listen},
		{"portal.https.listen", old.Portal.HTTPS.Listen != new.Portal.HTTPS.Listen},
		{"dhcp.enabled", old.DHCP.Enabled != new.DHCP.Enabled},
		{"dhcp.listen", old.DHCP.Listen != new.DHCP.Listen},
		{"acl.enabled", old.ACL.Enabled != new.ACL.Enabled},
		{"acl.dry_run", old.ACL.DryRun != new.ACL.DryRun},
		{"routes.enabled", old.Routes.Enabled != new.Routes.Enabled},
		{"neighbours.enabled", old.Neighbours.Enabled != new.Neighbours.Enabled},
		{"routes.protocol", old.Routes.Protocol != new.Routes.Protocol},
		{"log", old.Log != new.Log},
	} {
		if k.changed {
			keys = append(keys, k.key)
		}
	}
	return keys
}

// revision gives the commit that the program was built from, if the build knows.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// ignoreClosed drops the error of closing what is closed already.
func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
