"""What is learnt of each camera beside the scene: its colours, where it really stands, and how things look to it.

Letters: N rays, C cameras of a scene, K of them trained on, A numbers of an appearance.
"""

import torch
from torch import nn


class _PerCamera(nn.Module):
    """Numbers of each camera that is trained on.

    Args:
        cameras: (K,) int64 ascending, rows of the scene's cameras.
        numbers: of each.
    """

    cameras: torch.Tensor

    def __init__(self, cameras: torch.Tensor, numbers: int):
        super().__init__()
        self.register_buffer("cameras", cameras, persistent=False)
        self.values = nn.Parameter(torch.zeros(len(cameras), numbers))

    def rows(self, table: torch.Tensor, camera: torch.Tensor) -> torch.Tensor:
        """(N, X) rows of a table (K, X) for cameras (N,); zeros for one that is not trained on.

        As a product with zeros and ones, whose gradient has the same bits in each run.
        """
        return (camera[:, None] == self.cameras).to(table.dtype) @ table

    def centred(self) -> torch.Tensor:
        """(K, numbers) less their mean: what all cameras have in common is the scene's."""
        return self.values - self.values.mean(0)


class CameraColors(_PerCamera):
    """Gain and bias of each colour channel of a camera: what a rig whose exposures differ does to one scene.

        seen = gain * colour + bias        gains have the mean 1, biases the mean 0

    so that the scene has the colours of the mean camera, which is what a camera never seen is most likely to show.

    Args:
        cameras: (K,) int64 ascending, rows of the scene's cameras that are trained on.

    Example:
        >>> CameraColors(torch.tensor([0, 1, 3]))(torch.tensor([3, 0])).shape
        torch.Size([2, 6])
    """

    def __init__(self, cameras: torch.Tensor):
        super().__init__(cameras, 6)

    def forward(self, camera: torch.Tensor) -> torch.Tensor:
        """(N, 6) three gains and three biases of the cameras (N,) of rays; see `ops.render_loss`."""
        identity = torch.zeros(6, device=camera.device)
        identity[:3] = 1
        return identity + self.rows(self.centred(), camera)

    def prior(self) -> torch.Tensor:
        """Mean square of all gains less 1 and all biases, before their mean is taken out; 0 of no cameras."""
        return self.values.square().sum() / max(self.values.numel(), 1)


class CameraPoses(_PerCamera):
    """A small rotation and shift of each camera that is trained on.

        R' = exp([w]x) R,  t' = t + v        w radians about the world's axes, v scene units; both of mean 0

    so that the scene as a whole stays where it is.

    Args:
        cameras: (K,) int64 ascending, rows of the scene's cameras that are trained on.

    Example:
        >>> refined = CameraPoses(torch.arange(len(cameras)))(cameras.camera_to_world)
    """

    def __init__(self, cameras: torch.Tensor):
        super().__init__(cameras, 6)

    def forward(self, camera_to_world: torch.Tensor) -> torch.Tensor:
        """(C, 3, 4) poses, of which those that are trained on are refined."""
        every = torch.arange(len(camera_to_world), device=camera_to_world.device)
        offsets = self.rows(self.centred(), every)
        rotation = rotation_matrices(offsets[:, :3]) @ camera_to_world[:, :, :3]
        return torch.cat([rotation, camera_to_world[:, :, 3:] + offsets[:, 3:, None]], dim=2)


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


class Appearances(_PerCamera):
    """A vector per camera that the colour MLP is given: what an affine map cannot say, such as shading towards it.

    Args:
        cameras: (K,) int64 ascending, rows of the scene's cameras that are trained on.
        numbers: A.
    Source: Martin-Brualla et al. 2021, NeRF in the Wild.

    Example:
        >>> Appearances(torch.arange(4), 16)(None, 3).shape
        torch.Size([16, 3])
    """

    def forward(self, camera: torch.Tensor | None, count: int) -> torch.Tensor:
        """(A, N) vectors of the cameras (N,) of rays; of none, `count` times the mean of all."""
        if camera is None:
            mean = self.values.sum(0) / max(len(self.values), 1)
            return mean[:, None].expand(-1, count)
        return self.rows(self.values, camera).T
