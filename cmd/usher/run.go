package main

import (
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/agent"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
)

func newRun(c *cli.Program) *cobra.Command {
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
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			if err != nil {
				return err
			}
			// From here on a reload that comes while the agent starts waits; unheeded, the
			// signal would end the process.
			reload, stop := hangups()
			defer stop()
			log := cli.NewLogger(cmd.ErrOrStderr(), cfg.Log.Format, cli.LogLevel(cfg.Log.Level))
			started := leaveRoomForPackets()
			a, err := agent.New(cmd.Context(), cfg, agent.Options{Path: path, DryRun: dryRun, Version: c.Version, Service: serviceManager{log}, Log: log})
			if err != nil && cmd.Context().Err() != nil { // asked to, by a signal: no failure of the unit
				log.Info("stopped before it had started", "error", err)
				return nil
			}
			if err != nil {
				return err
			}
			started()
			return a.Run(cmd.Context(), reload)
		},
	}
	cli.ConfigFlag(cmd, &path)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "compute and show, touch neither the kernel nor the ERP, answer nobody")
	return cmd
}

// hangups turns SIGHUP into values of a channel until stop is called. Of those
// that come while one waits, one is kept.
func hangups() (reload <-chan struct{}, stop func()) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	asked := make(chan struct{}, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hup {
			select {
			case asked <- struct{}{}:
			default:
			}
		}
	}()
	return asked, func() {
		signal.Stop(hup) // nothing is sent any more when it returns
		close(hup)
		<-done
	}
}

// leaveRoomForPackets makes Go run at least four threads at once, also on one or
// two processors, and collect garbage less often. With no more threads than
// processors a collection beside the building of a snapshot can take them all,
// and a packet waits for milliseconds until Go gives one back; the kernel shares
// processors among threads sooner. Fewer collections cost some tens of MiB
// (docs/benchmarks.md). Until started is called garbage is collected only where GOMEMLIMIT says so: reading what was stored makes next to none, and to look through a
// million leases time and again while they come in takes as long as a part of that. Whoever sets GOMAXPROCS or GOGC knows better.
func leaveRoomForPackets() (started func()) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) < 4 {
		runtime.GOMAXPROCS(4)
	}
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	debug.SetGCPercent(-1)
	return func() { debug.SetGCPercent(400) }
}
