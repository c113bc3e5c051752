"""What every HTTP door needs: the routing table, inputs, problem answers, the OpenAPI document, what happens around each request."""
