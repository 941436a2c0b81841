package agent

import (
	"context"
	"fmt"
	"hash/fnv"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/provision/garden"
)

func (a *Agent) configLoaded(err error) {
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

// configStatus is the configuration in use, with the names in it that no interface has now.
func (a *Agent) configStatus() console.ConfigStatus {
	st := *a.status.Load()
	for _, w := range a.interfaceWarnings(a.cfg.Load()) {
		st.MissingInterfaces = append(st.MissingInterfaces, w.String())
	}
	st.Unguarded = a.cfg.Load().Unguarded(a.hostList())
	return st
}

func (a *Agent) reloadOn(ctx context.Context, reload <-chan struct{}) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-reload:
			a.service.Reloading()
			err := a.reload()
			a.configLoaded(err)
			a.auditReload(err)
			if err != nil {
				a.log.Error("reload failed; the earlier configuration stays in use", "error", err)
			} else {
				a.log.Info("configuration reloaded", "path", a.path)
			}
			a.service.Ready()
		}
	}
}

// reload does what can fail first and touches live parts only then.
func (a *Agent) reload() error {
	cfg, err := config.Load(a.path)
	if err != nil {
		return err
	}
	if a.dryRun {
		touchNothing(cfg)
	}
	old := a.cfg.Load()
	if changed := keys.Restart(old, cfg); len(changed) > 0 {
		return fmt.Errorf("%v cannot change while the agent runs: restart it", changed)
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
		if err := a.dhcp.Reload(a.dhcpOptions(cfg)); err != nil {
			return err
		}
	}
	if a.dhcp != nil && !a.dryRun {
		a.warnOfServerIDs()
	}
	a.erp.p.Store(fetcher)
	a.sources.Reconfigure(a.sourceOptions(cfg))
	a.enforcer.Reconfigure(enforceOptions(cfg.ACL, a.inputs(cfg))) // the round that follows replaces the rules in one batch
	a.outbox.Reconfigure(cfg.Reports.Rate, cfg.Reports.Burst, cfg.Reports.Enabled)
	a.syncer.Reconfigure(a.syncOptions(cfg))
	usePortal()
	a.garden.Reconfigure(gardenOptions(cfg, a.syncer.Current), garden.ServerLookup(cfg.ACL.Resolvers))
	if a.hooks != nil {
		a.hooks.Reconfigure(cfg.Hooks)
	}
	a.reloadRoutes(cfg)
	a.reloadNeighbours(cfg)
	a.cfg.Store(cfg)
	logWarnings(cfg, a.log)
	a.warnOfInterfaces(cfg)
	return nil
}

// logWarning writes one about a place in the configuration, with what may be pasted there.
func logWarning(w keys.Problem, log *slog.Logger) {
	args := []any{"file", w.File, "line", w.Line, "key", w.Key, "warning", w.Reason}
	if len(w.Paste) > 0 {
		args = append(args, "paste", strings.Join(w.Paste, " | "))
	}
	log.Warn("configuration", args...)
}

// logWarnings tells of what works but should be known.
func logWarnings(cfg *config.Config, log *slog.Logger) {
	for _, w := range cfg.Warnings {
		logWarning(w, log)
	}
}
