package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/config"
)

// stopLimit is how long the agent may take to end after SIGTERM.
const stopLimit = 2 * time.Second

func newRun(*cli) *cobra.Command {
	var path string
	var dryRun bool
	cmd := &cobra.Command{
		Use:   "run",
		Short: "Run the agent in the foreground",
		Long: `run is the agent: it polls the ERP, answers DHCP, reports MACs and blocks stopped and paused
customers. SIGHUP reloads the configuration; a faulty file leaves the old one in use. SIGTERM stops
within two seconds and leaves kernel state and leases as they are.

With --dry-run the agent computes and shows, and touches nothing: it reads the ERP and writes nothing to it (no MAC
reports, no states), opens no DHCP socket and so answers nobody, changes neither rules nor routes nor connections, and
opens no portal. "usher status", "acl show", "acl diff", "explain" and the console tell what it would do. What it does keep are its own
files in state_dir, its control socket and its console: beside an agent that works give it others.`,
		Example: "  usher run --config /etc/usher/usher.yaml\n  usher run --config usher.yaml --dry-run",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			if dryRun {
				touchNothing(cfg)
			}
			// From here on a reload that comes while the agent starts waits; unheeded, the
			// signal would end the process.
			hup := make(chan os.Signal, 1)
			signal.Notify(hup, syscall.SIGHUP)
			defer signal.Stop(hup)
			log := newLogger(cmd.ErrOrStderr(), cfg.Log.Format, logLevel(cfg.Log.Level))
			leaveRoomForPackets()
			a, err := newAgent(path, cfg, dryRun, log)
			if err != nil {
				return err
			}
			return a.run(cmd.Context(), hup)
		},
	}
	configFlag(cmd, &path)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "compute and show, touch neither the kernel nor the ERP, answer nobody")
	return cmd
}

// touchNothing makes a configuration that of a dry run. What else a dry run leaves
// undone the agent knows by itself.
func touchNothing(cfg *config.Config) {
	cfg.ACL.DryRun, cfg.Routes.DryRun, cfg.Reports.Enabled = true, true, false
}

// leaveRoomForPackets makes Go run at least four threads at once, also on one or
// two processors, and collect garbage less often. With no more threads than
// processors a collection beside the building of a snapshot can take them all,
// and a packet waits for milliseconds until Go gives one back; the kernel shares
// processors among threads sooner. Fewer collections cost some tens of MiB
// (docs/benchmarks.md). Whoever sets GOMAXPROCS or GOGC knows better.
func leaveRoomForPackets() {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < 4 {
		runtime.GOMAXPROCS(4)
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
}

// errStuck is the end of an agent of which a part goes on.
var errStuck = errors.New("some part did not stop")

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
