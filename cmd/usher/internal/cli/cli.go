// Package cli is what the commands of usher have in common: global flags, exit
// codes, mistakes on the command line, the client of a running agent, and how
// things are printed.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/console"
)

// Exit codes of the command.
const (
	ExitOK        = 0
	ExitFailure   = 1 // the command ran and the answer is no
	ExitUsage     = 2 // the command line is wrong
	ExitUncertain = 3 // a change was sent to the ERP, and nobody knows whether it was made
)

const (
	// DefaultConfig is the configuration that commands read unless told otherwise.
	DefaultConfig = "/etc/usher/usher.yaml"
	// defaultSocket is where "usher run" listens unless its configuration says otherwise.
	defaultSocket = "/run/usher/usher.sock"
)

// ClientLimit bounds a question to the agent, ChangeLimit a change of state: it waits
// for its turn and for the ERP, two minutes at most each.
const (
	ClientLimit = 60 * time.Second
	ChangeLimit = 250 * time.Second
)

// usageError marks a mistake on the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// Usage marks an error as a mistake on the command line.
func Usage(err error) error { return usageError{err} }

// ErrSilent ends a command that has already said what is wrong.
var ErrSilent = errors.New("")

// ErrUncertain is in the errors of commands that end with ExitUncertain.
var ErrUncertain = errors.New("it is not known whether the ERP did it")

// Program is what its commands share: the version and the global flags.
type Program struct {
	Version string
	Output  string // table or json
	Socket  string // of commands that have SocketFlag
}

// NewRoot makes the command under which all others stand.
func NewRoot(version string) (*cobra.Command, *Program) {
	c := &Program{Version: version}
	root := &cobra.Command{
		Use:           "usher",
		SilenceUsage:  true,
		SilenceErrors: true,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			if c.Output != "table" && c.Output != "json" {
				return Usage(fmt.Errorf("--output %q: want table or json", c.Output))
			}
			return nil
		},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return Usage(err) })
	root.PersistentFlags().StringVarP(&c.Output, "output", "o", "table", "how to print: table or json")
	Must(root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp)))
	return root, c
}

// Execute runs a command line and returns the exit code. All that it prints for people
// goes through a screen.
func Execute(ctx context.Context, root *cobra.Command, args []string) int {
	out, errs := newScreen(root.OutOrStdout()), newScreen(root.ErrOrStderr())
	root.SetOut(out)
	root.SetErr(errs)
	defer errs.flush()
	defer out.flush()
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return ExitOK
	}
	if !errors.Is(err, ErrSilent) {
		fmt.Fprintf(root.ErrOrStderr(), "usher: %s\n", errorText(err))
	}
	if errors.As(err, &usageError{}) || strings.HasPrefix(err.Error(), "unknown command") {
		fmt.Fprintf(root.ErrOrStderr(), "see: %s --help\n", cmd.CommandPath())
		return ExitUsage
	}
	if errors.Is(err, ErrUncertain) {
		return ExitUncertain
	}
	return ExitFailure
}

// errorText returns the text of an error. What the agent said in it may hold texts of
// others and is one line.
func errorText(err error) string {
	text := err.Error()
	if said := new(console.StatusError); errors.As(err, &said) {
		text = strings.ReplaceAll(text, said.Text, Line(said.Text))
	}
	return text
}

// Must turns a mistake of this program's own wiring into a panic at start.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Exactly is cobra.ExactArgs with an error that the exit code knows.
func Exactly(n int) cobra.PositionalArgs { return usageOf(cobra.ExactArgs(n)) }

// AtMost is Exactly with fewer allowed.
func AtMost(n int) cobra.PositionalArgs { return usageOf(cobra.MaximumNArgs(n)) }

func usageOf(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return Usage(fmt.Errorf("%s: %w (%s)", cmd.CommandPath(), err, cmd.UseLine()))
		}
		return nil
	}
}

// Subcommand refuses an argument of a command that only has sub-commands, with
// the nearest names.
func Subcommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	text := fmt.Sprintf("unknown command %q for %q", args[0], cmd.CommandPath())
	cmd.SuggestionsMinimumDistance = 2
	if near := cmd.SuggestionsFor(strings.ReplaceAll(args[0], "_", "-")); len(near) > 0 {
		text += "; did you mean " + strings.Join(near, " or ") + "?"
	} else {
		text += "; " + cmd.CommandPath() + " --help lists all"
	}
	return Usage(errors.New(text))
}

// ConfigFlag adds --config to a command.
func ConfigFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVarP(path, "config", "c", DefaultConfig, "configuration file")
	Must(cmd.MarkFlagFilename("config", "yaml", "yml"))
}

// SocketFlag adds --socket to a command that talks to the running agent.
func (c *Program) SocketFlag(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.Socket, "socket", defaultSocket, "control socket of the running agent")
	Must(cmd.MarkFlagFilename("socket"))
	return cmd
}

// Ask runs f with a client of the running agent and prints its answer.
func Ask[T any](c *Program, cmd *cobra.Command, f func(context.Context, *console.Client) (*T, error), print func(io.Writer, *T) error) error {
	return AskWithin(ClientLimit, c, cmd, f, print)
}

// AskWithin is Ask with a limit of its own.
func AskWithin[T any](limit time.Duration, c *Program, cmd *cobra.Command, f func(context.Context, *console.Client) (*T, error), print func(io.Writer, *T) error) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), limit)
	defer cancel()
	v, err := f(ctx, &console.Client{Socket: c.Socket})
	if err != nil {
		return err
	}
	return Show(c, cmd, v, print)
}

// Show prints an answer as --output wants it: for people every text in it is made harmless.
func Show[T any](c *Program, cmd *cobra.Command, v *T, print func(io.Writer, *T) error) error {
	if c.Output == "json" {
		return PrintJSON(cmd.OutOrStdout(), v)
	}
	return print(cmd.OutOrStdout(), Harmless(v))
}
