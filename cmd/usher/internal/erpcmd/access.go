package erpcmd

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/usher-agent/usher/cmd/usher/internal/agent"
	"github.com/usher-agent/usher/cmd/usher/internal/cli"
	"github.com/usher-agent/usher/config"
	"github.com/usher-agent/usher/config/keys"
	"github.com/usher-agent/usher/userside"
)

// maxSecretFile bounds a file that holds a key or a password.
const maxSecretFile = 4 << 10

// erpAccess is how a command reaches the ERP by itself, without the running
// agent: by the agent's configuration, or by an address and a key file.
type erpAccess struct {
	config   string
	url      string
	keyFile  string
	caFile   string
	insecure bool
	version  string // of the ERP
	timeout  time.Duration

	userAgent string
	stateDir  string                 // of the configuration, once that was read; empty: there is none
	given     func(flag string) bool // whether a flag stands on the command line
}

// erpFlags adds the flags of an erpAccess to a command.
func erpFlags(c *cli.Program, cmd *cobra.Command) *erpAccess {
	a := &erpAccess{userAgent: "usher/" + c.Version, given: func(flag string) bool { return cmd.Flags().Changed(flag) }}
	f := cmd.Flags()
	f.StringVarP(&a.config, "config", "c", cli.DefaultConfig, "configuration file that says how to reach the ERP")
	f.StringVar(&a.url, "url", "", "address of the ERP's API instead of a configuration, such as https://erp.example.net/api.php")
	f.StringVar(&a.keyFile, "key-file", "", "with --url: file that holds the API key; -: standard input")
	f.StringVar(&a.caFile, "ca-file", "", "with --url: PEM file of a further certificate authority")
	f.BoolVar(&a.insecure, "insecure-skip-verify", false, "with --url: do not verify the certificate of the ERP")
	f.StringVar(&a.version, "erp-version", "", "level of the ERP, such as 3.18 or 3.16dev3; empty: ask the server")
	f.DurationVar(&a.timeout, "timeout", 0, "limit of one request (default 30s or as configured)")
	cli.Must(cmd.MarkFlagFilename("config", "yaml", "yml"))
	cli.Must(cmd.MarkFlagFilename("key-file"))
	cli.Must(cmd.MarkFlagFilename("ca-file", "pem", "crt"))
	for _, flag := range []string{"url", "erp-version", "timeout"} {
		cli.Must(cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions))
	}
	return a
}

// options returns the options of a client. The key may be missing with keyless,
// for commands that only show what they would send. An error says which flag is
// wrong, and never repeats what may be the key.
func (a *erpAccess) options(stdin io.Reader, keyless bool) (userside.Options, error) {
	var o userside.Options
	var err error
	if a.url != "" {
		o, err = a.byAddress(stdin, keyless)
	} else {
		o, err = a.byConfig()
	}
	if err != nil {
		return o, err
	}
	if a.version != "" {
		if o.ERPVersion, err = userside.ParseVersion(a.version); err != nil {
			return o, cli.Usage(fmt.Errorf("--erp-version: %w", err))
		}
	}
	switch {
	case a.timeout < 0 || a.timeout == 0 && a.given("timeout"):
		return o, cli.Usage(fmt.Errorf("--timeout %v: want a duration above zero, such as 10s", a.timeout))
	case a.timeout > 0:
		o.Timeout = a.timeout
	}
	o.QuickTimeout = time.Hour // nothing but the person waits: timeout counts for short answers, too

	o.Logger = nil // a person waits: the error says it, retries are not told
	return o, nil
}

func (a *erpAccess) byConfig() (userside.Options, error) {
	for _, flag := range []string{"key-file", "ca-file", "insecure-skip-verify"} {
		if a.given(flag) {
			return userside.Options{}, cli.Usage(fmt.Errorf("--%s goes with --url; without it the configuration says how to reach the ERP", flag))
		}
	}
	cfg, err := config.Load(a.config)
	var wrong *keys.Errors
	switch {
	case errors.As(err, &wrong):
		return userside.Options{}, fmt.Errorf("%w\n(or reach the ERP without a configuration: --url URL --key-file FILE)", err)
	case err != nil:
		return userside.Options{}, fmt.Errorf("%w (name one with --config, or use --url URL --key-file FILE)", err)
	}
	a.stateDir = cfg.StateDir
	return agent.ClientOptions(cfg.ERP, a.userAgent, nil, nil), nil
}

func (a *erpAccess) byAddress(stdin io.Reader, keyless bool) (userside.Options, error) {
	o := userside.Options{URL: a.url, CAFile: a.caFile, InsecureSkipVerify: a.insecure, UserAgent: a.userAgent}
	switch {
	case a.given("config"):
		return o, cli.Usage(errors.New("--config and --url: want one of them"))
	case a.keyFile == "" && keyless:
		o.Key = "not given"
		return o, nil
	case a.keyFile == "":
		return o, cli.Usage(errors.New("--url: want --key-file FILE with the API key, too"))
	}
	key, err := readSecret("--key-file", a.keyFile, stdin)
	o.Key = userside.Key(key)
	return o, err
}

// client makes a client; nothing is sent yet.
func (a *erpAccess) client(stdin io.Reader, keyless bool) (*userside.Client, error) {
	o, err := a.options(stdin, keyless)
	if err != nil {
		return nil, err
	}
	c, err := userside.New(o)
	if err != nil {
		if a.url != "" {
			return nil, cli.Usage(err) // what a configuration says was checked before
		}
		return nil, err
	}
	return c, nil
}

// readSecret reads one line that nobody else may know from a file, or from
// stdin where the path is "-". Neither the text nor the path is in an error: the
// path may be the secret, misplaced.
func readSecret(flag, path string, stdin io.Reader) (string, error) {
	b, err := readSecretFile(path, stdin)
	if err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", fmt.Errorf("%s: the file cannot be read: %w", flag, err)
	}
	s := strings.TrimRight(string(b), "\r\n")
	switch {
	case len(b) > maxSecretFile:
		return "", fmt.Errorf("%s: the file is larger than %d bytes", flag, maxSecretFile)
	case s == "":
		return "", fmt.Errorf("%s: the file is empty", flag)
	case strings.ContainsAny(s, "\r\n\x00"):
		return "", fmt.Errorf("%s: the file has more than one line", flag)
	}
	return s, nil
}

func readSecretFile(path string, stdin io.Reader) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(io.LimitReader(stdin, maxSecretFile+1))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return nil, errors.New("it is a folder")
	case info.Mode().IsRegular() && info.Mode().Perm()&0o007 != 0:
		return nil, fmt.Errorf("everybody on this host can read it (mode %04o); want mode 0640 or 0600", info.Mode().Perm())
	}
	return io.ReadAll(io.LimitReader(f, maxSecretFile+1)) // a pipe of the shell, <(pass show erp), is welcome
}
