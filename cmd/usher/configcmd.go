package main

import (
	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
)

func newConfig() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "config",
		Short:   "What a configuration may say",
		Long:    "config tells programs what a configuration may say. \"usher check\" says what is wrong with one.",
		Example: "  usher config schema > usher.schema.json",
		Args:    cli.Subcommand,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newConfigSchema())
	return cmd
}

func newConfigSchema() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration",
		Long: `schema prints the JSON Schema (draft 2020-12) of the configuration: types, bounds, words, defaults and what
each key is for. Editors complete and check with it while you type, if the first line of the file is

  # yaml-language-server: $schema=usher.schema.json

It knows each value by itself. What several keys say together, and what is on this host, "usher check" looks at.`,
		Example: "  usher config schema > /etc/usher/usher.schema.json",
		Args:    cli.Exactly(0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := cmd.OutOrStdout().Write(config.Schema())
			return err
		},
	}
}
