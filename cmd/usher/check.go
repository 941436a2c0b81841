package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/keys"
)

func newCheck(c *cli.Program) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration and say everything that is wrong with it",
		Long: `check reads a configuration as "usher run" would and prints every mistake at once, each as
file:line:column: key: reason. It exits 0 when the file is good and 1 when it is not. Warnings tell
of what works but should be known; they do not change the exit code.`,
		Example: "  usher check --config /etc/usher/usher.yaml\n  usher check --config new.yaml --output json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(path)
			var wrong *keys.Errors
			if err != nil && !errors.As(err, &wrong) {
				return err
			}
			problems, warnings := []keys.Problem{}, []keys.Problem{}
			if wrong != nil {
				problems = wrong.Problems
			} else {
				warnings = append(warnings, cfg.Warnings...)
			}
			if c.Output == "json" {
				if err := cli.PrintJSON(cmd.OutOrStdout(), struct {
					File     string         `json:"file"`
					OK       bool           `json:"ok"`
					Problems []keys.Problem `json:"problems"`
					Warnings []keys.Problem `json:"warnings"`
				}{path, len(problems) == 0, problems, warnings}); err != nil {
					return err
				}
			} else {
				for _, p := range problems {
					fmt.Fprintln(cmd.ErrOrStderr(), p)
				}
				for _, p := range warnings {
					fmt.Fprintln(cmd.ErrOrStderr(), "warning:", p)
				}
			}
			if len(problems) > 0 {
				return cli.ErrSilent
			}
			if c.Output != "json" {
				fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %d subnets, ERP %s\n", path, len(cfg.DHCP.Subnets), cfg.ERP.Client.URL)
			}
			return nil
		},
	}
	cli.ConfigFlag(cmd, &path)
	return cmd
}
