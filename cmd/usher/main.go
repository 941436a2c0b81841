// Command usher is an agent for the access routers of an internet provider that
// runs the UserSide ERP: it answers DHCP from the ERP's bindings, reports the
// MACs it sees and blocks stopped and paused customers in the kernel.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the build (-ldflags "-X main.version=...").
var version = "unknown"

// Exit codes of the command.
const (
	exitOK      = 0
	exitFailure = 1 // the command ran and the answer is no
	exitUsage   = 2 // the command line is wrong
)

// usageError marks a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// errSilent ends a command that has already said what is wrong.
var errSilent = errors.New("")

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return execute(ctx, newRoot(), args)
}

// execute runs a command line and gives the exit code.
func execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitOK
	}
	if !errors.Is(err, errSilent) {
		fmt.Fprintf(root.ErrOrStderr(), "usher: %v\n", err)
	}
	if errors.As(err, &usageError{}) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(root.ErrOrStderr(), "see: %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}

// cli is what the sub-commands share: the global flags.
type cli struct {
	output string // table or json
	socket string
}

func newRoot() *cobra.Command {
	c := &cli{}
	root := &cobra.Command{
		Use:   "usher",
		Short: "DHCP and subscriber access control for access routers, driven by the UserSide ERP",
		Long: `usher seats every subscriber at the right address and keeps out those who must not enter.
It pulls the bindings of IP, MAC and switch port from the UserSide ERP, answers DHCP from
them, reports the MACs it sees, and turns customer states into rules of the kernel.`,
		Example: `  usher demo                               the whole job on this machine, in a minute
  usher check --config /etc/usher/usher.yaml
  usher run --config /etc/usher/usher.yaml
  usher explain 100.64.0.17
  usher customer get-data --customer-id 1001`,
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.output != "table" && c.output != "json" {
				return usageError{fmt.Errorf("--output %q: want table or json", c.output)}
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&c.output, "output", "o", "table", "how to print: table or json")
	must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	for _, g := range []struct {
		id, title string
		commands  []*cobra.Command
	}{
		{"agent", "The agent:", []*cobra.Command{newRun(c), newCheck(c), newConfig(), newStatus(c), newExplain(c), newOption82(c), newPools(c), newGuard(c), newACL(c), newRoutes(c)}},
		{"erp", "The ERP:", append([]*cobra.Command{newCustomer(c), newERP(c)}, newNeighbours(c)...)},
		{"try", "Without an ERP:", []*cobra.Command{newDemo(c), newEmulator(c), newProbe(c)}},
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

// must turns a mistake of this program's own wiring into a panic at start.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// exactly is cobra.ExactArgs with an error that the exit code knows.
func exactly(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := cobra.ExactArgs(n)(cmd, args); err != nil {
			return usageError{fmt.Errorf("%s: %w (%s)", cmd.CommandPath(), err, cmd.UseLine())}
		}
		return nil
	}
}

func newVersion(c *cli) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version",
		Example: "  usher version\n  usher version --output json",
		Args:    exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := struct {
				Version string `json:"version"`
				Go      string `json:"go"`
				OS      string `json:"os"`
				Arch    string `json:"arch"`
			}{version, runtime.Version(), runtime.GOOS, runtime.GOARCH}
			if c.output == "json" {
				return printJSON(cmd.OutOrStdout(), v)
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "usher %s (%s, %s/%s)\n", v.Version, v.Go, v.OS, v.Arch)
			return err
		},
	}
}
