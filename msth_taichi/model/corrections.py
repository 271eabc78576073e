"""What is learnt of each camera beside the scene: its colours, where it really stands, and how things look to it.

Letters: N rays, C cameras, A numbers of an appearance.
"""

import torch
from torch import nn


def _rows(table: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(N, K) rows of a table (C, K). As a product with zeros and ones, whose gradient has the same bits in each run."""
    chosen = index[:, None] == torch.arange(len(table), device=table.device)
    return chosen.to(table.dtype) @ table


class CameraColors(nn.Module):
    """Gain and bias of each colour channel of a camera: what a rig whose exposures differ does to one scene.

        seen = gain * colour + bias,  gain = 1 + offset

    Nothing but `prior` says what the true colours are: it makes them those of the mean camera.

    Args:
        cameras: C.

    Example:
        >>> CameraColors(4)(torch.tensor([2, 0])).shape
        torch.Size([2, 6])
    """

    def __init__(self, cameras: int):
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(cameras, 6))

    def forward(self, camera: torch.Tensor) -> torch.Tensor:
        """(N, 6) three gains and three biases of the cameras (N,) of rays; see `ops.render_loss`."""
        ones = torch.zeros(6, device=camera.device)
        ones[:3] = 1
        return ones + _rows(self.offsets, camera)

    def prior(self) -> torch.Tensor:
        """Mean square of the offsets: pulls gains to 1 and biases to 0."""
        return self.offsets.square().mean()


class CameraPoses(nn.Module):
    """A small rotation and shift of each camera.

        R' = exp([w]x) R,  t' = t + v        w radians about the world's axes, v scene units

    Args:
        cameras: C.

    Example:
        >>> refined = CameraPoses(4)(cameras.camera_to_world)
    """

    def __init__(self, cameras: int):
        super().__init__()
        self.offsets = nn.Parameter(torch.zeros(cameras, 6))

    def forward(self, camera_to_world: torch.Tensor) -> torch.Tensor:
        """(C, 3, 4) refined poses."""
        rotation = rotation_matrices(self.offsets[:, :3]) @ camera_to_world[:, :, :3]
        return torch.cat([rotation, camera_to_world[:, :, 3:] + self.offsets[:, 3:, None]], dim=2)


def rotation_matrices(vectors: torch.Tensor) -> torch.Tensor:
    """(C, 3, 3) rotations by |w| radians about w, for vectors w (C, 3): Rodrigues' formula.

        exp([w]x) = 1 + sin(a)/a [w]x + (1 - cos(a))/a^2 [w]x^2,  a = |w|

    Example:
        >>> rotation_matrices(torch.tensor([[0.0, 0.0, torch.pi / 2]]))[0, :, 0].round()
        tensor([0., 1., 0.])
    """
    square = vectors.square().sum(1)[:, None, None]
    # both quotients by their series where the angle is small, and there without a root, whose slope is infinite at 0
    small = square < 1e-4
    angle = torch.where(small, 1.0, square).sqrt()
    sine = torch.where(small, 1 - square / 6, angle.sin() / angle)
    cosine = torch.where(small, 0.5 - square / 24, (1 - angle.cos()) / angle.square())
    x, y, z = vectors.unbind(1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=1).view(-1, 3, 3)
    return torch.eye(3, device=vectors.device) + sine * cross + cosine * (cross @ cross)


class Appearances(nn.Module):
    """A vector per camera that the colour MLP is given: what an affine map cannot say, such as shading towards it.

    Args:
        cameras: C.
        numbers: A.
    Source: Martin-Brualla et al. 2021, NeRF in the Wild.

    Example:
        >>> Appearances(4, 16)(None, 3).shape
        torch.Size([16, 3])
    """

    def __init__(self, cameras: int, numbers: int):
        super().__init__()
        self.vectors = nn.Parameter(torch.zeros(cameras, numbers))

    def forward(self, camera: torch.Tensor | None, count: int) -> torch.Tensor:
        """(A, N) vectors of the cameras (N,) of rays; of none, `count` times the mean of the cameras that have one."""
        if camera is not None:
            return _rows(self.vectors, camera).T
        # a camera that was never trained on is still at zero
        used = (self.vectors != 0).any(1).sum().clamp(min=1)
        return (self.vectors.sum(0) / used)[:, None].expand(-1, count)
