// Command usher is an agent for the access routers of an internet provider that
// runs the UserSide ERP: it answers DHCP from the ERP's bindings, reports the
// MACs it sees and blocks stopped and paused customers in the kernel.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/check"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/cmd/usher/internal/demo"
	"github.com/usher-agent/usher/cmd/usher/internal/erpcmd"
	"github.com/usher-agent/usher/cmd/usher/internal/show"
	"github.com/usher-agent/usher/cmd/usher/internal/tools"
	"github.com/usher-agent/usher/provision/statedb"
)

// version is set by the build (-ldflags "-X main.version=...").
var version = "unknown"

func main() {
	statedb.Child()
	os.Exit(run(os.Args[1:]))
}

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return cli.Execute(ctx, newRoot(), args)
}

func newRoot() *cobra.Command {
	root, c := cli.NewRoot(version)
	root.Short = "DHCP and subscriber access control for access routers, driven by the UserSide ERP"
	root.Long = `usher seats every subscriber at the right address and keeps out those who must not enter.
It pulls the bindings of IP, MAC and switch port from the UserSide ERP, answers DHCP from
them, reports the MACs it sees, and turns customer states into rules of the kernel.`
	root.Example = `  usher demo                               the whole job on this machine, in a minute
  usher check --config /etc/usher/usher.yaml
  usher run --config /etc/usher/usher.yaml
  usher explain 100.64.0.17
  usher customer get-data --customer-id 1001`
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"agent", "The agent:", append([]*cobra.Command{newRun(c), check.Command(c), newConfig()}, show.Commands(c)...)},
		{"erp", "The ERP:", erpcmd.Commands(c)},
		{"try", "Without an ERP:", append([]*cobra.Command{demo.Command(c)}, tools.Commands(c)...)},
	} {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
		for _, cmd := range g.commands {
			cmd.GroupID = g.id
			root.AddCommand(cmd)
		}
	}
	root.AddCommand(newVersion(c))
	return root
}

func newVersion(c *cli.Program) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  usher version\n  usher version --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if c.Output == "json" {
				return cli.PrintJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "usher %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return err
		},
	}
}
