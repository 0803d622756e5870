package seqrec

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"seqrec/inference"
)

const (
	defaultTimeout = 10 * time.Second
	tries          = 3
	firstPause     = 100 * time.Millisecond // at most; each further one may be twice as long
)

// Options of a connection; the zero value is fine.
type Options struct {
	Timeout time.Duration // of a call whose context has no deadline; 10 seconds if 0
	TLS     *TLS          // nil: not encrypted
}

// Client is a connection to a Triton server, safe for concurrent use: make one, and share it.
type Client struct {
	address string
	timeout time.Duration
	conn    *grpc.ClientConn
	server  inference.GRPCInferenceServiceClient
}

// Dial sets up the connection to a HOST:PORT; the first call makes it.
func Dial(address string, options Options) (*Client, error) {
	client := &Client{address: address, timeout: options.Timeout}
	if client.timeout == 0 {
		client.timeout = defaultTimeout
	}
	security := grpc.WithInsecure()
	if options.TLS != nil {
		credentials, err := options.TLS.credentials()
		if err != nil {
			return nil, client.fail(codes.InvalidArgument, "", "%s", err)
		}
		security = grpc.WithTransportCredentials(credentials)
	}
	dial := []grpc.DialOption{
		security,
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32)),
		// By default a server that was away is looked for only every two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: firstPause, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second,
			},
			MinConnectTimeout: defaultTimeout,
		}),
	}
	if local(address) {
		dial = append(dial, grpc.WithNoProxy())
	}
	conn, err := grpc.Dial(address, dial...)
	if err != nil {
		return nil, client.fail(codes.InvalidArgument, "", "%s", err)
	}
	client.conn, client.server = conn, inference.NewGRPCInferenceServiceClient(conn)
	return client, nil
}

func local(address string) bool {
	for _, prefix := range []string{"127.", "localhost:", "[::1]"} {
		if strings.HasPrefix(address, prefix) {
			return true
		}
	}
	return false
}

// Close closes the connection.
func (c *Client) Close() error {
	return c.conn.Close()
}

// Ready asks whether the server has the model ready to answer.
func (c *Client) Ready(ctx context.Context, model string) (bool, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	var response *inference.ModelReadyResponse
	err := c.retry(ctx, model, func() (err error) {
		response, err = c.server.ModelReady(ctx, &inference.ModelReadyRequest{Name: model})
		return err
	})
	return response.GetReady(), err
}

// Call gives every output of each row. More rows than the server takes at once go out as several
// requests, one after another, within one deadline: the context's, or else that of the Options.
func (c *Client) Call(ctx context.Context, contract *Contract, rows []Row) ([]Row, error) {
	for i, row := range rows {
		if err := contract.check(row); err != nil {
			return nil, c.fail(codes.InvalidArgument, contract.Model, "row %d: %s", i, err)
		}
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	answers := make([]Row, 0, len(rows))
	for size := contract.MaxBatchSize; len(rows) > 0; rows = rows[size:] {
		if size < 1 || size > len(rows) {
			size = len(rows)
		}
		decoded, err := c.infer(ctx, contract, rows[:size])
		if err != nil {
			return nil, err
		}
		answers = append(answers, decoded...)
	}
	return answers, nil
}

func (c *Client) infer(ctx context.Context, contract *Contract, rows []Row) ([]Row, error) {
	request := encode(contract, rows)
	var response *inference.ModelInferResponse
	err := c.retry(ctx, contract.Model, func() (err error) {
		response, err = c.server.ModelInfer(ctx, request)
		return err
	})
	if err != nil {
		return nil, err
	}
	answers, err := decode(contract, rows, response)
	if err != nil {
		return nil, c.fail(codes.Internal, contract.Model, "%s", err)
	}
	return answers, nil
}

func (c *Client) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, given := ctx.Deadline(); given {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, c.timeout)
}

// retry tries again if the server is away for a moment, and only then: whatever else fails
// would fail again.
func (c *Client) retry(ctx context.Context, model string, attempt func() error) error {
	longest := firstPause
	for try := 1; ; try++ {
		err := attempt()
		if err == nil {
			return nil
		}
		failed := status.Convert(err)
		failure := c.fail(failed.Code(), model, "%s", failed.Message())
		if failed.Code() != codes.Unavailable || try == tries {
			return failure
		}
		select {
		case <-time.After(pause(longest)):
			longest *= 2
		case <-ctx.Done():
			return failure
		}
	}
}

// pause is from half of the longest to all of it, so that many clients do not come back at once.
// Until Go 1.20 math/rand begins with the same number in every process.
func pause(longest time.Duration) time.Duration {
	var random [8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return longest
	}
	return longest/2 + time.Duration(binary.LittleEndian.Uint64(random[:])%uint64(longest/2))
}

func (c *Client) fail(code codes.Code, model, format string, values ...any) *Error {
	message := fmt.Sprintf(format, values...)
	return &Error{Code: code, Model: model, Address: c.address, Message: message}
}
