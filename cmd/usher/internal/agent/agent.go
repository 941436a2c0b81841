// Package agent is the running daemon: it makes the parts, runs their tasks and
// takes over a new configuration. It holds no data of its own and knows no
// signals: a context ends it, a channel asks for a reload.
//
// New opens everything in an order in which nothing of the kernel is touched before
// the sockets are ours, and pushes on the teardown how to let it go. Run starts
// the tasks, waits until the context ends or one of them fails, gives them time to
// end, and takes the teardown, newest first.
package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/console/door"
	"github.com/usher-agent/usher/console/portal"
	"github.com/usher-agent/usher/dhcpd"
	"github.com/usher-agent/usher/provision/access"
	"github.com/usher-agent/usher/provision/acl"
	"github.com/usher-agent/usher/provision/audit"
	"github.com/usher-agent/usher/provision/garden"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link"
	"github.com/usher-agent/usher/provision/neighbour"
	"github.com/usher-agent/usher/provision/outbox"
	"github.com/usher-agent/usher/provision/route"
	"github.com/usher-agent/usher/provision/statedir"
	"github.com/usher-agent/usher/provision/syncer"
	"github.com/usher-agent/usher/provision/wayback"
	"github.com/usher-agent/usher/userside"
)

// Options say how an agent runs, besides its configuration.
type Options struct {
	Path    string  // of the configuration, which a reload reads again
	DryRun  bool    // compute and show, touch nothing
	Version string  // of the program
	Service Service // nil: nobody wants to know
	Log     *slog.Logger
}

// Agent is the wiring of one "usher run".
type Agent struct {
	path    string
	dryRun  bool // from the command line: stays over reloads
	build   console.Build
	service Service
	log     *slog.Logger
	cfg     atomic.Pointer[config.Config]
	status  atomic.Pointer[console.ConfigStatus]

	metrics    *console.Metrics
	erp        *liveERP
	erpSeen    erpAddresses
	syncer     *syncer.Syncer
	enforcer   *access.Enforcer
	sources    *access.Sources
	follower   *access.Follower
	table      *acl.Table // nil: the kernel is not touched
	audit      *audit.Log
	store      lease.Store
	outbox     *outbox.Outbox
	leases     *lease.Table
	dhcp       *dhcpd.Server      // nil: dhcp.enabled is false
	links      *link.Watch        // nil: dhcp.enabled is false, or netlink does not work
	hooks      *console.Hooks     // nil: hooks.listen is off
	routes     *route.Keeper      // nil: routes.enabled is false
	routeTable *link.Routes       // of routes
	neighbours *neighbour.Watcher // nil: neighbours.enabled is false
	waysBack   *wayback.Checker   // nil: interfaces are not followed
	garden     *garden.Resolver
	portal     *portal.Server // nil: portal.listen and portal.https.listen are off
	control    net.Listener
	doors      doors

	lookAtDoors func() []door.Status

	registry *prometheus.Registry
	shown    console.Deps

	teardown teardown
}

// startLimit is how long a start that is to end may take to notice; after it a disk hangs.
const startLimit = 500 * time.Millisecond

// New makes every part and opens its sockets; nothing runs yet. On error
// nothing is left open; the end of ctx is one, also where a disk hangs. The configuration becomes the agent's.
func New(ctx context.Context, cfg *config.Config, o Options) (*Agent, error) {
	a := &Agent{
		path: o.Path, dryRun: o.DryRun, service: o.Service, log: o.Log, erp: &liveERP{},
		build: console.Build{Version: o.Version, Revision: revision(), GoVersion: runtime.Version()},
	}
	opened := make(chan error, 1)
	go func() { opened <- a.open(ctx, cfg) }()
	err := boundedStop(ctx, startLimit, opened)
	if errors.Is(err, errStuck) {
		err = fmt.Errorf("the start was ended while it waited for the disk: %w", context.Cause(ctx))
	}
	if err != nil {
		return nil, errors.Join(err, a.Stop())
	}
	return a, nil
}

// open makes every part of the agent.
func (a *Agent) open(ctx context.Context, cfg *config.Config) (err error) {
	if a.service == nil {
		a.service = noService{}
	}
	if a.dryRun {
		touchNothing(cfg)
	}
	a.cfg.Store(cfg)
	logWarnings(cfg, a.log)
	a.registry = console.NewRegistry()
	a.metrics = console.NewMetrics(a.registry)
	a.metrics.SetBuild(a.build)
	a.configLoaded(nil)

	// Two agents on one host would undo each other's work: the socket tells.
	if a.control, err = console.ListenUnix(cfg.Control.Socket, cfg.Control.Group); err != nil {
		return err
	}
	a.teardown.push("control socket", func() error { return ignoreClosed(a.control.Close()) })
	a.erp.file, a.erp.log = filepath.Join(cfg.StateDir, "answers"), a.log
	fetcher, err := a.newFetcher(cfg)
	if err != nil {
		return err
	}
	a.erp.p.Store(fetcher)
	a.metrics.WatchBudget(func() userside.Budget { return a.erp.p.Load().Budget() })
	a.metrics.WatchPending(a.erp.pending)
	if err := os.MkdirAll(cfg.StateDir, 0o750); err != nil {
		a.log.Error("state directory cannot be made; pools lease nothing until it can", "path", cfg.StateDir, "error", err)
	}
	a.audit = audit.NewLog(cfg.StateDir, a.metrics, a.log, time.Now)
	a.teardown.pushDisk("audit record", a.closeAudit)
	a.syncer = syncer.New(a.syncOptions(cfg), a.erp,
		syncer.NewStore(filepath.Join(cfg.StateDir, "snapshot")), a.metrics, a.log)
	if err := a.syncer.LoadStored(); errors.As(err, new(*statedir.NewerError)) {
		return err
	} else if err != nil {
		a.log.Error("stored snapshot cannot be used; waiting for the ERP", "error", err)
	}
	a.metrics.WatchSources(a.syncer.Sources)
	if err := a.openLeases(ctx, cfg); err != nil {
		return err
	}
	if err := a.openRoutes(cfg); err != nil {
		return err
	}
	if err := a.openNeighbours(cfg); err != nil {
		return err
	}
	events := dhcpd.NewEventLog(0)
	if err := a.openDHCP(cfg, events); err != nil {
		return err
	}
	if err := a.openGarden(cfg); err != nil {
		return err
	}
	if err := a.openKernel(cfg); err != nil {
		return err
	}
	if err := a.openPortal(cfg); err != nil {
		return err
	}
	a.openHooks(cfg)
	a.openDoors(door.Descriptors())
	a.metrics.WatchOpen(func() time.Time { return a.enforcer.Status().OpenUntil })
	a.metrics.WatchUnheard(func() int { return a.enforcer.Status().IPv6.Unheard.Count })
	a.shown = a.shownParts(cfg, events)
	a.warnOfInterfaces(cfg)
	return nil
}

// shownParts are those that the console shows and steers.
func (a *Agent) shownParts(cfg *config.Config, events *dhcpd.EventLog) console.Deps {
	d := console.Deps{
		Build: a.build, Started: time.Now(), DryRun: a.dryRun, RouteProtocol: cfg.Routes.Protocol,
		Syncer: a.syncer, Enforcer: a.enforcer, ACL: a.aclDeps(cfg), Leases: a.leases, State: a.store.Health, Outbox: a.outbox, Events: events,
		Metrics: a.metrics, Garden: a.garden, Audit: a.audit, Dropper: dropper{a},
		Config: a.configStatus, Multicast: forwardsMulticast, Doors: a.lookAtDoors, ERPCalls: a.erp.pending, Answers: a.erp.answers,
	}
	if a.table != nil {
		d.Kernel = a.table
	}
	if a.routes != nil {
		d.Routes = a.routes
	}
	if a.waysBack != nil {
		d.WaysBack = a.waysBack.Findings
	}
	if a.dhcp != nil {
		d.DHCP, d.Pools = a.dhcp, a.dhcp
	}
	if !a.dryRun { // states are not changed in the ERP either
		d.ERP = a.erp
	}
	return d
}

func (a *Agent) openLeases(ctx context.Context, cfg *config.Config) (err error) {
	if a.store, err = lease.OpenStore(ctx, cfg.StateDir, a.log); err != nil {
		return err
	}
	a.teardown.pushDisk("state", a.store.Close)
	if a.leases, err = lease.Open(a.store); err != nil {
		return fmt.Errorf("leases: %w", err)
	}
	a.teardown.pushDisk("leases", a.closeLeases)
	if n, examples := a.leases.Skipped(); n > 0 {
		a.log.Warn("stored leases cannot be read and are left out", "count", n, "examples", examples)
	}
	if a.outbox, err = outbox.Open(a.store, a.outboxOptions(cfg.Reports), a.erp, a.metrics, a.log); err != nil {
		return err
	}
	a.teardown.pushDisk("reports", a.closeReports)
	a.metrics.WatchState(a.store.Health, func() outbox.Status { return a.outbox.Status(0) })
	return nil
}

// closeLeases writes what was answered while the parts were stopping.
func (a *Agent) closeLeases() error {
	if err := a.leases.Close(); err != nil {
		a.log.Error("last leases could not be written", "error", err)
	}
	return nil
}

// closeReports is closeLeases for MAC reports.
func (a *Agent) closeReports() error {
	if err := a.outbox.Flush(); err != nil {
		a.log.Error("last MAC reports could not be written", "error", err)
	}
	return nil
}

func (a *Agent) openDHCP(cfg *config.Config, events *dhcpd.EventLog) error {
	if !cfg.DHCP.Enabled {
		return a.listen(nil)
	}
	deps := dhcpd.Deps{
		Snapshot: a.syncer.Current, Leases: a.leases, Failing: a.store.Failing,
		Journal:  admitting{lease.Journal{Table: a.leases, Reports: a.outbox}, a},
		Observer: a.packetObservers(events), Log: a.log, Now: time.Now,
	}
	a.metrics.WatchLeases(func() lease.Counts { return a.leases.Counts(time.Now()) })
	a.openLinks(&deps)
	srv, err := dhcpd.New(a.dhcpOptions(cfg), deps)
	if err != nil {
		return err
	}
	a.dhcp = srv
	a.metrics.WatchPools(srv.Pools)
	a.metrics.WatchSenders(srv.Senders)
	if a.dryRun {
		return a.listen(nil) // it decides for "usher explain" and opens no socket
	}
	if err := a.listen(srv); err != nil {
		return err
	}
	a.teardown.push("dhcp", srv.Close)
	a.metrics.WatchSockets(func() console.SocketCounts {
		n := console.SocketCounts{Sockets: srv.Sockets()}
		if a.links != nil {
			st := a.links.Status()
			n.Changes, n.Resyncs = st.Changes, st.Resyncs
		}
		return n
	})
	a.warnOfServerIDs()
	a.openWaysBack()
	return nil
}

// openLinks follows the interfaces. Without it the server asks for them by itself.
func (a *Agent) openLinks(deps *dhcpd.Deps) {
	w, err := link.OpenWatch(link.WatchOptions{Log: a.log})
	if err != nil {
		a.log.Warn("interfaces cannot be followed; the server asks for each every few seconds", "error", err)
		return
	}
	a.teardown.push("interfaces", w.Close)
	a.links, deps.Links = w, w
}

// warnOfServerIDs tells of server identifiers that clients could not renew at. Where
// an address moves between routers it is right on one of them at a time.
func (a *Agent) warnOfServerIDs() {
	if ids := a.dhcp.Sockets().ForeignServerIDs; len(ids) > 0 {
		a.log.Warn("server identifiers that are no address of this host: clients would renew elsewhere", "server_ids", ids)
	}
}

// openKernel opens the ACL. With dry_run, or when it is off, nothing in the kernel is touched.
func (a *Agent) openKernel(cfg *config.Config) error {
	var kernel access.Kernel
	var flows access.Flows
	a.sources = access.NewSources(a.sourceOptions(cfg), a.leases, a.garden, a.interfaceNames)
	if cfg.ACL.Enabled && !cfg.ACL.DryRun {
		table, err := acl.Open(context.Background(), acl.Options{Log: a.log, Policy: a.policy()})
		if err != nil {
			return fmt.Errorf("acl: %w (it needs CAP_NET_ADMIN; with acl.dry_run: true nothing is touched)", err)
		}
		a.teardown.push("acl", table.Close)
		f, err := link.OpenFlows(link.Options{Log: a.log})
		if err != nil {
			return fmt.Errorf("conntrack: %w", err)
		}
		a.teardown.push("conntrack", f.Close)
		kernel, flows, a.table = table, f, table
	} else {
		kernel = acl.NewDryRun(a.log)
	}
	a.enforcer = access.NewEnforcer(enforceOptions(cfg.ACL, a.inputs(cfg)), kernel, flows, a.syncer.Current, a.metrics, a.log)
	a.follower = access.Follow(a.sources, a.enforcer)
	return nil
}

// touchNothing makes a configuration that of a dry run. What else a dry run leaves
// undone the agent knows by itself.
func touchNothing(cfg *config.Config) {
	cfg.ACL.DryRun, cfg.Routes.DryRun, cfg.Reports.Enabled = true, true, false
}

// revision returns the commit that the program was built from, if the build knows.
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
